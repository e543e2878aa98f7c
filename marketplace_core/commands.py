"""Imperatives: what somebody asks of the market. Each may be refused."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from marketplace_core.dispatch.order import Shortfall
from marketplace_core.intervals import Interval
from marketplace_core.units import Direction, Kw


class SubmitOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Use contracted flexibility: `kw` in the need's direction over `interval`."""

    need_id: str
    kw: Kw
    interval: Interval


class RevisePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Plan what is left of a running order anew, because something falls short."""

    order_id: str
    revision: int
    """The number that the new plan gets: one above the plan in force."""
    since: datetime
    """From when on; the order's end stays."""
    short: tuple[Shortfall, ...]
    """Devices that do not do their share."""
    missing: tuple[tuple[str, Kw], ...]
    """Contract id and the kilowatts that its own devices cannot make up."""
    reason: str


class PublishNeed(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the market for flexibility on a feeder."""

    feeder: str
    direction: Direction
    kw: Kw
    window: Interval
    price_cap: Decimal
    currency: str
    min_bid_kw: Kw = Kw(0.0)
    baseline: str = "caiso_10_of_10"
    allowed_baselines: tuple[str, ...] = ()


class PlaceBid(msgspec.Struct, frozen=True, kw_only=True):
    """Offer flexibility against a need."""

    need_id: str
    assets: tuple[str, ...]
    kw: Kw
    utilisation_price: Decimal
    divisible: bool = True
    min_kw: Kw = Kw(0.0)
    baseline: str = ""
