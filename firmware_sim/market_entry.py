"""What a scenario brings to a market: sellers, assets, profiles, a need and bids for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from firmware_sim.scenario import (
    CarPark,
    Charger,
    Home,
    MarketDay,
    Seller,
    SuggestedBid,
    SuggestedNeed,
)
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.registry.asset import Asset, MeasurementPoint
from marketplace_core.units import Kw, Kwh

HOMES, CARS, SITES = "org_sunrise_homes", "org_voltfleet_cars", "org_campus_garage"
_BUYER = "org_grid_operator"
_NAMES = {
    HOMES: ("Sunrise Homes", "battery"),
    CARS: ("Voltfleet Cars", "ev_charger"),
    SITES: ("Campus Garage", "site"),
}
_TERMS = {
    HOMES: (Decimal(180), "caiso_10_of_10"),
    CARS: (Decimal(140), "meter_before_after"),
    SITES: (Decimal(240), "meter_before_after"),
}
"""Utilisation price per MWh, and the baseline that suits what the seller's meters show: the
cars of one station, and of one car park, say little about the same hour of other days, so both
take the hour before."""
_LEASE_S = 900.0
_NOTICE_S = 900.0
_BID_SHARE = 0.8
_SITE_SHARE = 0.3
"""Part of its usual load that a car park puts up for an hour."""
_STEP_KW = 0.5
_LEAST_KW = 0.05
"""A station with less to give than this is no asset of the day."""


def assets(
    market: MarketDay,
    homes: Sequence[Home],
    chargers: Sequence[Charger],
    sites: Sequence[CarPark],
    site_load_kw: Mapping[str, float],
) -> tuple[Asset, ...]:
    """One asset per home, station and site, registered for what it can really change."""
    found = [_home_asset(market, home) for home in homes]
    found += [
        _asset(market, one.id, one.seller, MeasurementPoint.DEVICE, one.flexible_kw)
        for one in chargers
        if one.flexible_kw >= _LEAST_KW
    ]
    found += [
        _asset(
            market, one.id, one.seller, MeasurementPoint.SITE_NET,
            _floor(_SITE_SHARE * site_load_kw[one.id]),
        )
        for one in sites
    ]  # fmt: skip
    return tuple(found)


def sellers(registered: Sequence[Asset]) -> tuple[Seller, ...]:
    """The organisations that own something, in a stable order."""
    owners = {asset.organisation for asset in registered}
    return tuple(Seller(id=id_, name=_NAMES[id_][0], technology=_NAMES[id_][1])
                 for id_ in _NAMES if id_ in owners)  # fmt: skip


def profiles(
    homes: Sequence[Home], chargers: Sequence[Charger], sites: Sequence[CarPark]
) -> tuple[DeviceProfile, ...]:
    """Limits and safety of every device that can be driven.

    A station is offered only as far down as lets its car leave as full as it would have.
    """
    found: list[DeviceProfile] = []
    for home in homes:
        found += [_battery_profile(home), _inverter_profile(home)]
    found += [
        DeviceProfile(
            device_id=one.id, protocol="mqtt", min_kw=Kw(-one.rate_kw),
            max_kw=Kw(round(one.flexible_kw - one.rate_kw, 2)), control=ControlKind.LIMIT,
            lease=LeaseKind.TIME_TO_LIVE, lease_s=_LEASE_S,
        )
        for one in chargers
    ]  # fmt: skip
    found += [
        DeviceProfile(
            device_id=one.id, protocol="openadr", min_kw=Kw(-_site_capacity_kw(one)),
            max_kw=Kw(0.0), control=ControlKind.LIMIT, lease=LeaseKind.EVENT_END,
            lease_s=24 * 3600.0, notice_s=_NOTICE_S,
        )
        for one in sites
    ]  # fmt: skip
    return tuple(found)


def bids(registered: Sequence[Asset]) -> tuple[SuggestedBid, ...]:
    """One bid per seller, of what its assets can hold for the whole event."""
    found = []
    for seller in sellers(registered):
        own = [asset for asset in registered if asset.organisation == seller.id]
        share = 1.0 if seller.id == SITES else _BID_SHARE
        kw = _floor(share * math.fsum(asset.up_kw for asset in own))
        if kw <= 0:
            continue
        price, baseline = _TERMS[seller.id]
        found.append(
            SuggestedBid(
                seller=seller.id, assets=tuple(asset.id for asset in own), kw=kw, price=price,
                divisible=True, min_kw=min(kw, 1.0), baseline=baseline,
            )
        )  # fmt: skip
    return tuple(found)


def need(offered: Sequence[SuggestedBid]) -> SuggestedNeed:
    """A need of most of what is offered, so that the dearest bid is cut."""
    total = math.fsum(bid.kw for bid in offered)
    return SuggestedNeed(
        buyer=_BUYER,
        kw=_floor(_BID_SHARE * total),
        direction="UP",
        price_cap=Decimal(400),
        baseline="caiso_10_of_10",
        allowed_baselines=("meter_before_after",),
    )


def _home_asset(market: MarketDay, home: Home) -> Asset:
    hold = home.battery_spec.deliverable_kwh(home.stored_kwh) / market.event_hours
    up = _floor(min(home.battery_spec.power_kw, hold))
    return Asset(
        id=f"ast_{home.id}", organisation=home.seller, feeder=market.feeder, technology="battery",
        devices=(home.battery,), meter=home.meter, measurement_point=MeasurementPoint.SITE_NET,
        up_kw=Kw(up), down_kw=Kw(home.battery_spec.power_kw),
    )  # fmt: skip


def _asset(
    market: MarketDay,
    device: str,
    seller: str,
    point: MeasurementPoint,
    up_kw: float,
) -> Asset:
    return Asset(
        id=device.replace("dev_", "ast_", 1), organisation=seller, feeder=market.feeder,
        technology=_NAMES[seller][1], devices=(device,), meter=device, measurement_point=point,
        up_kw=Kw(up_kw),
    )  # fmt: skip


def _battery_profile(home: Home) -> DeviceProfile:
    """No declared fallback power: left alone, the battery's own behaviour is to idle."""
    spec = home.battery_spec
    return DeviceProfile(
        device_id=home.battery, protocol="modbus", min_kw=Kw(-spec.power_kw),
        max_kw=Kw(spec.power_kw), control=ControlKind.SETPOINT, lease=LeaseKind.REVERT_TIMER,
        lease_s=_LEASE_S,
        capacity_kwh=Kwh(round(spec.usable_kwh(spec.capacity_kwh), 3)),
    )  # fmt: skip


def _inverter_profile(home: Home) -> DeviceProfile:
    return DeviceProfile(
        device_id=home.inverter, protocol="modbus", min_kw=Kw(0.0), max_kw=Kw(home.rated_pv_kw),
        control=ControlKind.LIMIT, lease=LeaseKind.REVERT_TIMER, lease_s=_LEASE_S,
    )  # fmt: skip


def _site_capacity_kw(site: CarPark) -> float:
    """Connection of a car park: 54 stations for each week it is made of."""
    return round(54 * len(site.weeks) * site.rate_kw, 1)


def _floor(kw: float) -> float:
    """Rounded down to the half kilowatt."""
    return math.floor(kw / _STEP_KW + 1e-9) * _STEP_KW
