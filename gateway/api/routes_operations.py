"""Health, metrics, devices and the journal."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import msgspec
from fastapi import APIRouter, Request, Response
from sqlalchemy import func, select

from gateway.api.auth import Caller, Principal
from gateway.api.paging import Paging, page_response, with_next
from gateway.api.problems import problem
from gateway.api.services import Services, Using, json_response
from gateway.store.audit import facts_page
from gateway.store.paging import checked, slice_of
from gateway.store.readings import NEWEST
from gateway.store.registry import devices_of
from gateway.store.setpoints import ends_in_force
from gateway.store.tables import dead_letters
from marketplace_core.dispatch.leases import lease_of, seconds_left
from marketplace_core.errors import NotFoundError

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> Response:
    """The event loop turns."""
    return json_response({"status": "alive"})


@router.get("/readyz")
async def readyz(services: Using) -> Response:
    """The service can do its work; what is away degrades it, is named and is retried."""
    waiting = services.health.waiting_for
    if waiting:
        return problem(503, "Not ready yet", detail=f"waiting for {', '.join(waiting)}")
    letters = await services.read(
        lambda c: c.scalar(select(func.count()).select_from(dead_letters))
    )
    stale = services.live.stale()
    degraded = [_down(services, protocol) for protocol in services.health.down]
    degraded += services.health.degraded()
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


def _down(services: Services, protocol: str) -> str:
    fault = services.health.fault(protocol)
    return f"{protocol} is not connected" + (f": {fault}" if fault else "")


@router.get("/metrics")
async def metrics(services: Using) -> Response:
    """Prometheus exposition."""
    await asyncio.to_thread(services.refresh_gauges)
    return Response(services.metrics.exposition(), media_type="text/plain; version=0.0.4")


@router.get("/v1/devices")
async def list_devices(request: Request, services: Using, caller: Caller, page: Paging) -> Response:
    """The caller's own devices, for an operator all: profile, newest reading, lease left, gaps."""
    devices = await _visible(services, caller)
    known = await _known(services)
    found = slice_of(devices, devices, page)
    return page_response(request, found, lambda each: _device(services, each, known))


@router.get("/v1/devices/{device_id}")
async def read_device(device_id: str, services: Using, caller: Caller) -> Response:
    """One device."""
    if device_id not in await _visible(services, caller):
        raise NotFoundError("device", device_id)
    return json_response(_device(services, device_id, await _known(services)))


@router.get("/v1/quarantine")
async def list_quarantine(
    request: Request, services: Using, caller: Caller, page: Paging
) -> Response:
    """Malformed messages, newest first, and how many readings are missing, per series."""
    caller.require("operator")
    before = int(checked(page.after, [int])[0]) if page.after else NEWEST
    found = await services.reads.compute(
        lambda: services.readings.quarantined(page.limit + 1, before)
    )
    messages = found[: page.limit]
    following = (messages[-1].number,) if len(found) > page.limit else None
    shown = json_response({"messages": messages, "gaps": services.readings.gaps().missing})
    return with_next(shown, request, following)


@router.get("/v1/journal")
async def read_journal(
    request: Request, services: Using, caller: Caller, page: Paging, stream: str | None = None
) -> Response:
    """Facts that concern the caller's organisation, by time; for an operator all of them.

    A page may hold fewer facts than asked for and still have a next one.
    """
    found = await services.read(lambda c: facts_page(c, caller.viewer, page, stream))
    return page_response(request, found)


@router.get("/v1/journal/verification")
async def verify_journal(services: Using, caller: Caller) -> Response:
    """Walk the hash chains and hold them against the signed roots."""
    caller.require("operator")
    verdict = await services.reads.compute(services.verify_journal)
    body = msgspec.structs.asdict(verdict)
    return json_response({**body, "verified": not body["faults"]})


async def _visible(services: Services, caller: Principal) -> list[str]:
    """Ids of the devices that the caller may see."""
    caller.require_reader("seller", "operator")
    if caller.viewer.everything:
        return sorted(services.profiles)
    own = await services.read(lambda c: devices_of(c, caller.viewer))
    return sorted(own & set(services.profiles))


async def _seconds_left(services: Services) -> dict[str, float]:
    """Market seconds left of what each device holds, whoever ends it."""
    now = services.clock.now()
    ends = await services.read(lambda c: ends_in_force(c, now))
    return seconds_left(services.leases(), ends, now, services.profiles)


class _Known(NamedTuple):
    """What is asked once for many devices."""

    leases: dict[str, float]
    stale: set[str]
    missing: dict[str, int]


async def _known(services: Services) -> _Known:
    return _Known(
        await _seconds_left(services), set(services.live.stale()), services.readings.gaps().missing
    )


def _device(services: Services, device_id: str, known: _Known) -> dict[str, object]:
    return {
        "device_id": device_id,
        "profile": services.profiles[device_id],
        "newest": services.live.newest(device_id),
        "stale": device_id in known.stale,
        "lease_seconds_left": known.leases.get(device_id),
        "lease": lease_of(services.profiles[device_id], known.leases.get(device_id)),
        "readings_missing": known.missing.get(device_id, 0),
    }
