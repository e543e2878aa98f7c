"""Health, metrics, devices and the journal."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Response
from sqlalchemy import func, select

from gateway.api.auth import Caller
from gateway.api.problems import problem
from gateway.api.services import Services, Using, json_response
from gateway.store.tables import dead_letters, journal

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> Response:
    """The event loop turns."""
    return json_response({"status": "alive"})


@router.get("/readyz")
def readyz(services: Using) -> Response:
    """The service can do its work; devices that are stale degrade it, no more."""
    waiting = services.health.waiting_for
    if waiting:
        return problem(503, "Not ready yet", detail=f"waiting for {', '.join(waiting)}")
    with services.engine.connect() as connection:
        letters = connection.scalar(select(func.count()).select_from(dead_letters))
    stale = services.live.stale()
    status = "degraded" if stale or letters else "ready"
    return json_response({"status": status, "stale_devices": len(stale), "dead_letters": letters})


@router.get("/metrics")
def metrics(services: Using) -> Response:
    """Prometheus exposition."""
    _refresh_gauges(services)
    return Response(services.metrics.exposition(), media_type="text/plain; version=0.0.4")


@router.get("/v1/devices")
def list_devices(services: Using, caller: Caller) -> Response:
    """Every device: profile, newest reading, seconds left on its lease."""
    caller.require("operator")
    leases = services.leases()
    stale = set(services.live.stale())
    return json_response(
        [
            {
                "device_id": device_id,
                "profile": profile,
                "newest": services.live.newest(device_id),
                "stale": device_id in stale,
                "lease_seconds_left": leases.get(device_id),
            }
            for device_id, profile in sorted(services.profiles.items())
        ]
    )


@router.get("/v1/quarantine")
def list_quarantine(services: Using, caller: Caller) -> Response:
    """The newest malformed messages, and readings given up as lost per series."""
    caller.require("operator")
    return json_response(
        {"messages": services.readings.quarantined(), "gaps": services.readings.gaps()}
    )


@router.get("/v1/journal/verification")
def verify_journal(services: Using, caller: Caller) -> Response:
    """Walk the hash chains and hold them against the signed roots."""
    caller.require("operator")
    verdict = services.verify_journal()
    body = msgspec.structs.asdict(verdict)
    return json_response({**body, "verified": not body["faults"]})


def _refresh_gauges(services: Services) -> None:
    with services.engine.connect() as connection:
        count = connection.scalar(select(func.count()).select_from(journal))
    services.metrics.journal_records.set(count or 0)
    services.metrics.devices_stale.set(len(services.live.stale()))
    leases = services.leases()
    services.metrics.lease_seconds.set(min(leases.values(), default=0.0))
