"""What a scenario brings to a market: sellers, assets and the profiles of their devices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from firmware_sim.scenario import CarPark, Charger, Fleet, Home, MarketDay, Seller
from firmware_sim.station_choice import Choice
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.registry.asset import Asset, MeasurementPoint
from marketplace_core.units import Direction, Kw, Kwh

HOMES, CARS, SITES = "org_sunrise_homes", "org_voltfleet_cars", "org_campus_garage"
LEAST_KW = 0.05
"""A station with less to give than this in an event has nothing to give."""
_NAMES = {
    HOMES: ("Sunrise Homes", "battery"),
    CARS: ("Voltfleet Cars", "ev_charger"),
    SITES: ("Campus Garage", "site"),
}
_FULLEST_AT_START = 0.40
"""Most that a battery holds at the start of the day, as a share of its capacity."""
_CHARGED_BY_EVENING = 0.85
"""What a battery surely holds after the DOWN event, as a share of its capacity."""
_SUN_SHARE = 0.5
"""Part of the usual generation that a home counts on being able to curtail."""
_SITE_SHARE = 0.3
"""Part of its usual load that a car park puts up for two hours."""
_STEP_KW = 0.1
_LEASE_S = 1800.0
_SITE_NOTICE_S = 900.0
_FLEET_NOTICE_S = 600.0
_DAY_S = 24 * 3600.0
Devices = tuple[Sequence[Home], Sequence[Charger], Sequence[Fleet], Sequence[CarPark]]


class Flexible(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind the devices, as their owners estimate it from history."""

    pv_kw: Mapping[str, float]
    """Usual generation in the DOWN event, by home id."""
    chargers: Mapping[str, Choice]
    """By charger id."""
    fleet: Sequence[Choice]
    """The stations behind the backend."""
    site_load_kw: Mapping[str, float]
    """Usual load in the UP event, by site id."""


def assets(market: MarketDay, devices: Devices, flexible: Flexible) -> tuple[Asset, ...]:
    """One asset per home, station, fleet and site, registered for what it can hold."""
    homes, chargers, fleets, sites = devices
    found = [_home_asset(market, home, flexible.pv_kw[home.id]) for home in homes]
    found += [
        _asset(market, one, "ev_charger", MeasurementPoint.DEVICE, flexible.chargers[one.id])
        for one in chargers
    ]
    for one in fleets:
        together = Choice(
            flexible.fleet[0].station,
            math.fsum(choice.up_kw for choice in flexible.fleet),
            math.fsum(choice.down_kw for choice in flexible.fleet),
        )
        found.append(_asset(market, one, "ev_charger", MeasurementPoint.DEVICE, together))
    for site in sites:
        load = flexible.site_load_kw[site.id]
        asset = _asset(market, site, "site", MeasurementPoint.SITE_NET, None)
        found.append(msgspec.structs.replace(asset, up_kw=Kw(floor(_SITE_SHARE * load, _STEP_KW))))
    return tuple(found)


def sellers(registered: Sequence[Asset]) -> tuple[Seller, ...]:
    """The organisations that own something, in a stable order."""
    owners = {asset.organisation for asset in registered}
    return tuple(Seller(id=id_, name=_NAMES[id_][0], technology=_NAMES[id_][1])
                 for id_ in _NAMES if id_ in owners)  # fmt: skip


def profiles(devices: Devices) -> tuple[DeviceProfile, ...]:
    """Limits and safety of every device that can be driven."""
    homes, chargers, fleets, sites = devices
    found: list[DeviceProfile] = []
    for home in homes:
        found += [_battery_profile(home), _inverter_profile(home)]
    found += [
        DeviceProfile(
            device_id=one.id, protocol="mqtt", min_kw=Kw(-one.rate_kw), max_kw=Kw(0.0),
            control=ControlKind.SETPOINT, lease=LeaseKind.TIME_TO_LIVE, lease_s=_LEASE_S,
        )
        for one in chargers
    ]  # fmt: skip
    found += [
        DeviceProfile(
            device_id=one.id, protocol="webhook", min_kw=Kw(-round(one.stations * one.rate_kw, 1)),
            max_kw=Kw(0.0), control=ControlKind.SETPOINT, lease=LeaseKind.EVENT_END,
            lease_s=_DAY_S, notice_s=_FLEET_NOTICE_S, telemetry_s=60.0,
        )
        for one in fleets
    ]  # fmt: skip
    found += [
        DeviceProfile(
            device_id=one.id, protocol="openadr", min_kw=Kw(-one.capacity_kw), max_kw=Kw(0.0),
            control=ControlKind.LIMIT, lease=LeaseKind.EVENT_END, lease_s=_DAY_S,
            notice_s=_SITE_NOTICE_S,
        )
        for one in sites
    ]  # fmt: skip
    return tuple(found)


def floor(kw: float, step: float) -> float:
    """Rounded down to a step."""
    return round(math.floor(kw / step + 1e-9) * step, 6)


def _home_asset(market: MarketDay, home: Home, pv_kw: float) -> Asset:
    """UP counts the battery only; DOWN its room and what can be curtailed of the sun."""
    spec = home.battery_spec
    up_hours = market.event(Direction.UP).interval.hours
    down_hours = market.event(Direction.DOWN).interval.hours
    up = spec.deliverable_kwh(_CHARGED_BY_EVENING * spec.capacity_kwh) / up_hours
    room = (1.0 - _FULLEST_AT_START) * spec.capacity_kwh / spec.one_way / down_hours
    return Asset(
        id=f"ast_{home.id}", organisation=home.seller, feeder=market.feeder, technology="battery",
        devices=(home.battery, home.inverter), meter=home.meter,
        measurement_point=MeasurementPoint.SITE_NET,
        up_kw=Kw(floor(min(spec.power_kw, up), _STEP_KW)),
        down_kw=Kw(floor(min(spec.power_kw, room) + _SUN_SHARE * pv_kw, _STEP_KW)),
    )  # fmt: skip


def _asset(
    market: MarketDay,
    device: Charger | Fleet | CarPark,
    technology: str,
    point: MeasurementPoint,
    gives: Choice | None,
) -> Asset:
    up, down = (gives.up_kw, gives.down_kw) if gives is not None else (0.0, 0.0)
    return Asset(
        id=device.id.replace("dev_", "ast_", 1), organisation=device.seller, feeder=market.feeder,
        technology=technology, devices=(device.id,), meter=device.id, measurement_point=point,
        up_kw=Kw(floor(up, _STEP_KW)), down_kw=Kw(floor(down, _STEP_KW)),
    )  # fmt: skip


def _battery_profile(home: Home) -> DeviceProfile:
    """No declared fallback power: left alone, the battery's own behaviour is to idle."""
    spec = home.battery_spec
    return DeviceProfile(
        device_id=home.battery, protocol="modbus", min_kw=Kw(-spec.power_kw),
        max_kw=Kw(spec.power_kw), control=ControlKind.SETPOINT, lease=LeaseKind.REVERT_TIMER,
        lease_s=_LEASE_S, capacity_kwh=Kwh(round(spec.usable_kwh(spec.capacity_kwh), 3)),
    )  # fmt: skip


def _inverter_profile(home: Home) -> DeviceProfile:
    """Curtailing wastes the sun, so it comes last."""
    return DeviceProfile(
        device_id=home.inverter, protocol="modbus", min_kw=Kw(0.0), max_kw=Kw(home.rated_pv_kw),
        control=ControlKind.LIMIT, lease=LeaseKind.REVERT_TIMER, lease_s=_LEASE_S, tier=1,
    )  # fmt: skip
