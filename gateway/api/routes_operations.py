"""Health, metrics, devices and the journal."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Response
from sqlalchemy import func, select

from gateway.api.auth import Caller
from gateway.api.problems import problem
from gateway.api.services import Using, json_response
from gateway.store.tables import dead_letters

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> Response:
    """The event loop turns."""
    return json_response({"status": "alive"})


@router.get("/readyz")
def readyz(services: Using) -> Response:
    """The service can do its work; what is away degrades it, is named and is retried."""
    waiting = services.health.waiting_for
    if waiting:
        return problem(503, "Not ready yet", detail=f"waiting for {', '.join(waiting)}")
    with services.engine.connect() as connection:
        letters = connection.scalar(select(func.count()).select_from(dead_letters))
    stale = services.live.stale()
    degraded = [f"{protocol} is not connected" for protocol in services.health.down]
    if stale:
        degraded.append(f"{len(stale)} of {len(services.profiles)} devices are stale")
    if letters:
        degraded.append(f"{letters} facts are dead letters")
    return json_response(
        {
            "status": "degraded" if degraded else "ready", "degraded": degraded,
            "stale_devices": len(stale), "dead_letters": letters,
        }
    )  # fmt: skip


@router.get("/metrics")
def metrics(services: Using) -> Response:
    """Prometheus exposition."""
    services.refresh_gauges()
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
