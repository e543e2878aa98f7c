"""The network tree, what is registered where, and what a feeder can give now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import msgspec
from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from gateway.api.auth import Caller
from gateway.api.idempotency import KEYED, once
from gateway.api.paging import Paging, page_response
from gateway.api.schemas import LocationBody
from gateway.api.services import Services, Using, json_response
from gateway.store.locations import assets_on, feeders_with_assets, tree
from gateway.store.paging import slice_of
from gateway.store.setpoints import SetpointRow, SetpointState, in_force
from gateway.store.viewer import Viewer
from marketplace_core.dispatch.bounds import headroom, unusable
from marketplace_core.errors import NotFoundError
from marketplace_core.registry.asset import Asset
from marketplace_core.registry.location import Level, Location, feeders_below
from marketplace_core.units import Direction

router = APIRouter(prefix="/v1/locations", tags=["locations"])
_EVERYBODY = Viewer("", everything=True)
"""For totals over a feeder, which name nobody's assets."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at a place and what it does now; kilowatts, injection positive."""

    assets: int
    devices: int
    registered_up_kw: float
    registered_down_kw: float
    available_up_kw: float
    """Headroom of the usable devices over one settlement period."""
    available_down_kw: float
    measured_kw: float
    """Newest power of every device that has reported."""
    driven: int
    """Devices under a setpoint that was sent. The next three are over these."""
    commanded_kw: float
    acknowledged_kw: float
    """Setpoints that were acknowledged, in kW."""
    driven_measured_kw: float


@router.put("", status_code=200, openapi_extra=KEYED)
async def place_locations(
    body: list[LocationBody], request: Request, services: Using, caller: Caller
) -> Response:
    """Draw places into the tree, all or none; a known one is moved or renamed."""
    caller.require("operator")
    placed = [item.location() for item in body]
    return await once(
        request, services, caller, lambda tx: services.market.place(tx, placed), status=200
    )


@router.get("")
async def list_locations(
    request: Request, services: Using, caller: Caller, page: Paging, level: Level | None = None
) -> Response:
    """Places by id, with those feeders of the caller's assets that the tree does not know."""
    found = await services.read(lambda c: _places(c, caller.viewer))
    chosen = [each for each in found if level is None or each.level is level]
    return page_response(request, slice_of(chosen, [each.id for each in chosen], page))


@router.get("/{location_id}")
async def read_location(location_id: str, services: Using, caller: Caller) -> Response:
    """A place, where it lies, what lies in it, the caller's assets there, and totals.

    Totals are for buyers and operators.
    """
    totals = caller.role in {"buyer", "operator"}
    return json_response(
        await services.read(lambda c: _look(c, services, caller.viewer, location_id, totals=totals))
    )


def _look(
    connection: Connection, services: Services, viewer: Viewer, location_id: str, *, totals: bool
) -> dict[str, object]:
    places = {each.id: each for each in _places(connection, viewer)}
    feeders = feeders_below(places.values(), location_id)
    everybody = assets_on(connection, _EVERYBODY, feeders) if totals else []
    if location_id not in places and not everybody:
        raise NotFoundError("location", location_id)
    standing = in_force(connection, services.clock.now()) if totals else []
    return {
        "location": places.get(location_id, _loose(location_id)),
        "path": _path(places, location_id),
        "children": [each for each in places.values() if each.parent == location_id],
        "assets": [each.id for each in assets_on(connection, viewer, feeders)],
        "totals": _totals(services, everybody, standing) if totals else None,
    }


def _places(connection: Connection, viewer: Viewer) -> list[Location]:
    """The tree, and the feeders outside of it on which the viewer has assets, by id."""
    known = tree(connection)
    loose = [_loose(each) for each in feeders_with_assets(connection, viewer) - set(known)]
    return sorted([*known.values(), *loose], key=lambda each: each.id)


def _loose(feeder: str) -> Location:
    return Location(id=feeder, name=feeder, level=Level.FEEDER)


def _path(places: Mapping[str, Location], location_id: str) -> list[Location]:
    """The places above one, the country first."""
    above: list[Location] = []
    at = places.get(location_id)
    while at is not None and at.parent is not None:
        at = places.get(at.parent)
        if at is not None:
            above.insert(0, at)
    return above


def _totals(
    services: Services, assets: Sequence[Asset], setpoints: Sequence[SetpointRow]
) -> Totals:
    devices = sorted({device for each in assets for device in each.devices})
    measured = {
        device: reading.power_kw
        for device in devices if (reading := services.live.newest(device)) is not None
    }  # fmt: skip
    known = set(devices)
    here = [row for row in setpoints if row.setpoint.device_id in known]
    commanded = {row.setpoint.device_id: row.setpoint.power_kw for row in here}
    acknowledged = [row.setpoint.power_kw for row in here if row.state is SetpointState.APPLIED]
    return Totals(
        assets=len(assets),
        devices=len(devices),
        registered_up_kw=sum(each.up_kw for each in assets),
        registered_down_kw=sum(each.down_kw for each in assets),
        available_up_kw=_available(services, devices, Direction.UP),
        available_down_kw=_available(services, devices, Direction.DOWN),
        measured_kw=sum(measured.values()),
        driven=len(commanded),
        commanded_kw=sum(commanded.values()),
        acknowledged_kw=sum(acknowledged),
        driven_measured_kw=sum(measured.get(device, 0.0) for device in commanded),
    )


def _available(services: Services, devices: Sequence[str], direction: Direction) -> float:
    hours = services.grid.length / timedelta(hours=1)
    states = services.live.devices(devices)
    return sum(headroom(state, direction, hours) for state in states if not unusable(state))
