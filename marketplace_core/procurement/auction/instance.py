"""What is cleared: needs over windows, and the bids on them.

A window is one stretch of time at one place. Several places are cleared together by laying
their windows side by side (`side_by_side`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from marketplace_core.procurement.need import Pricing

KWH_PER_MWH: Final = 1000.0


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One bid on the windows of an instance."""

    id: str
    seller: str
    kw: tuple[float, ...]
    """Offered in each window; 0 where it offers nothing."""
    price_per_mwh: tuple[float, ...]
    divisible: bool
    """Once taken, may be cut to min(min_kw, kw) in each window; else whole or not at all."""
    min_kw: float = 0.0
    exclusive_group: str | None = None
    """At most one bid of a group is taken."""
    requires: tuple[str, ...] = ()
    """Bids that have to be taken with this one."""

    def least_kw(self, window: int) -> float:
        """What has to be awarded in a window once the bid is taken."""
        return min(self.min_kw, self.kw[window]) if self.divisible else self.kw[window]

    def kwh(self, hours: tuple[float, ...]) -> float:
        """Energy offered over all windows."""
        return sum(kw * length for kw, length in zip(self.kw, hours, strict=True))

    def mean_price(self, hours: tuple[float, ...]) -> float:
        """Price per MWh over all the energy that it offers: what ties are settled by."""
        energy = [kw * length for kw, length in zip(self.kw, hours, strict=True)]
        total = sum(energy)
        if total <= 0:
            return 0.0
        return sum(e * p for e, p in zip(energy, self.price_per_mwh, strict=True)) / total


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """Needs, bids and the buyer's rules. `parsing.py` checks what comes from outside."""

    pricing: Pricing
    need_kw: tuple[float, ...]
    hours: tuple[float, ...]
    """Length of each window."""
    bids: tuple[Offer, ...]
    max_share: float | None = None
    """Most energy awarded to one seller, as a share of the energy needed; None: no limit."""
    price_cap: float | None = None
    """A bid that asks more in any window is out; per MWh."""
    max_hhi: float | None = None
    """Most concentration: sum over sellers of (awarded kWh / needed kWh) squared, 0 to 1."""

    @property
    def windows(self) -> int:
        """How many windows there are."""
        return len(self.need_kw)

    @property
    def needed_kwh(self) -> float:
        """Energy needed over all windows."""
        return sum(kw * length for kw, length in zip(self.need_kw, self.hours, strict=True))

    @property
    def share_limit_kwh(self) -> float | None:
        """Most energy awarded to one seller."""
        return None if self.max_share is None else self.max_share * self.needed_kwh


def side_by_side(places: Mapping[str, Instance]) -> Instance:
    """One instance over the windows of several places, in the order of their names.

    A bid id that occurs at several places is one bid across them: taken at all or at none.
    Pricing and limits are those of the first place; shares are of the energy needed anywhere.
    """
    ordered = [places[name] for name in sorted(places)]
    first, before = ordered[0], 0
    total = sum(each.windows for each in ordered)
    merged: dict[str, Offer] = {}
    for each in ordered:
        for bid in each.bids:
            merged[bid.id] = _laid(bid, before, total, merged.get(bid.id))
        before += each.windows
    return msgspec.structs.replace(
        first,
        need_kw=tuple(kw for each in ordered for kw in each.need_kw),
        hours=tuple(length for each in ordered for length in each.hours),
        bids=tuple(merged.values()),
    )


def _laid(bid: Offer, before: int, total: int, known: Offer | None) -> Offer:
    """`bid` with its windows at their place among `total`, joined with what is `known` of it."""
    kw = list(known.kw) if known else [0.0] * total
    price = list(known.price_per_mwh) if known else [0.0] * total
    kw[before : before + len(bid.kw)] = bid.kw
    price[before : before + len(bid.kw)] = bid.price_per_mwh
    return msgspec.structs.replace(known or bid, kw=tuple(kw), price_per_mwh=tuple(price))
