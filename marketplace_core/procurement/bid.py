"""A bid against a need, and what became of it."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from marketplace_core.units import Kw


class Bid(msgspec.Struct, frozen=True, kw_only=True):
    """A seller's offer of power for the whole service window of one need."""

    id: str
    need_id: str
    seller: str
    assets: tuple[str, ...]
    kw: Kw
    utilisation_price: Decimal
    """Per MWh, in the currency of the need."""
    divisible: bool = True
    min_kw: Kw = Kw(0.0)
    """Smallest part a divisible bid may be cut to."""
    baseline: str = ""
    """Baseline method the seller chooses; empty = the need's own."""


class Award(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one bid: accepted in whole or part, or rejected, always with the reason."""

    bid_id: str
    seller: str
    accepted: bool
    kw: Kw
    """Awarded power; 0 when rejected."""
    price: Decimal
    """Price paid per MWh when accepted, else the price asked."""
    reason: str
    """Complete sentence a seller understands."""


class Clearing(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one auction."""

    need_id: str
    awards: tuple[Award, ...]
    """One for every bid, in merit order."""
    unmet_kw: Kw
    method: str
    """Rule that cleared it, such as `greedy_prisma`."""
