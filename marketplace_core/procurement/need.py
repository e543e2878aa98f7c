"""A need: what a buyer asks the market for. Never which technology."""

from __future__ import annotations

import enum
from decimal import Decimal

import msgspec

from marketplace_core.intervals import Interval
from marketplace_core.units import Direction, Kw


class Pricing(enum.Enum):
    """What an awarded bid is paid."""

    PAY_AS_BID = "pay_as_bid"
    PAY_AS_CLEAR = "pay_as_clear"


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Power wanted on one feeder over one service window."""

    id: str
    buyer: str
    feeder: str
    direction: Direction
    kw: Kw
    window: Interval
    price_cap: Decimal
    """Highest utilisation price accepted, per MWh."""
    currency: str
    pricing: Pricing = Pricing.PAY_AS_BID
    min_bid_kw: Kw = Kw(0.0)
    baseline: str = "caiso_10_of_10"
    """Baseline method of its contracts, unless a bid names another that is allowed."""
    allowed_baselines: tuple[str, ...] = ()
    """Other methods a bid may name."""
    terms: str = "utilisation"
    """Settlement terms that contracts from this need name."""
