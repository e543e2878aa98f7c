"""The bids that can be taken, as arrays in the order in which ties are settled."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from marketplace_core.procurement.auction.instance import KWH_PER_MWH, Instance, Offer

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Tableau(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of `bids`; arrays are bids x windows unless said otherwise."""

    bids: tuple[Offer, ...]
    """By mean price, then id."""
    number: dict[str, int]
    """Row of each bid id."""
    need: FloatArray
    """kW by window."""
    hours: FloatArray
    least: FloatArray
    """kW awarded at least once the bid is taken."""
    most: FloatArray
    """kW awarded at most that can be of use: what exceeds the need of a window is cut."""
    unit_cost: FloatArray
    """Cost of one kW over the window."""
    groups: tuple[tuple[int, ...], ...]
    """Rows of which at most one is taken."""
    requires: tuple[tuple[int, int], ...]
    """(a, b): a is taken only with b."""
    sellers: tuple[tuple[str, tuple[int, ...]], ...]
    """Sellers whose limit could bind, with their rows."""
    share_limit_kwh: float | None
    free: BoolArray
    """By bid: can be taken at no cost and in no bid's way, so it always is, at 0 kW or more."""

    @property
    def size(self) -> int:
        """How many bids can be taken."""
        return len(self.bids)

    def cuttable(self) -> BoolArray:
        """Where the award is more than yes or no."""
        return self.most > self.least


def tableau(instance: Instance, eligible: Sequence[Offer]) -> Tableau:
    """Arrays of the eligible bids."""
    bids = sorted(eligible, key=lambda bid: (bid.mean_price(instance.hours), bid.id))
    number = {bid.id: row for row, bid in enumerate(bids)}
    shape = (len(bids), instance.windows)
    offered = np.array([bid.kw for bid in bids], dtype=float).reshape(shape)
    price = np.array([bid.price_per_mwh for bid in bids], dtype=float).reshape(shape)
    whole = np.array([not bid.divisible for bid in bids], dtype=bool)
    least_kw = np.array([bid.min_kw for bid in bids], dtype=float)
    least = np.where(whole[:, None], offered, np.minimum(offered, least_kw[:, None]))
    need, hours = np.array(instance.need_kw), np.array(instance.hours)
    groups = _groups(bids)
    requires = tuple(
        (row, number[other])
        for row, bid in enumerate(bids)
        for other in sorted(set(bid.requires) - {bid.id})
    )
    held = {row for group in groups for row in group} | {row for row, _ in requires}
    nothing = least.sum(axis=1) <= 0
    free = np.array([bool(nothing[row]) and row not in held for row in range(len(bids))], bool)
    most = np.maximum(least, np.minimum(offered, need))
    limit = instance.share_limit_kwh
    return Tableau(
        bids=tuple(bids), number=number, need=need, hours=hours, least=least, most=most,
        unit_cost=price * hours / KWH_PER_MWH, groups=groups, requires=requires,
        sellers=_limited(bids, (most * hours).sum(axis=1), limit), share_limit_kwh=limit, free=free,
    )  # fmt: skip


def _groups(bids: Sequence[Offer]) -> tuple[tuple[int, ...], ...]:
    found: dict[str, list[int]] = {}
    for row, bid in enumerate(bids):
        if bid.exclusive_group is not None:
            found.setdefault(bid.exclusive_group, []).append(row)
    return tuple(tuple(rows) for _, rows in sorted(found.items()) if len(rows) > 1)


def _limited(
    bids: Sequence[Offer], most_kwh: FloatArray, limit: float | None
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    if limit is None:
        return ()
    found: dict[str, list[int]] = {}
    for row, bid in enumerate(bids):
        found.setdefault(bid.seller, []).append(row)
    return tuple(
        (seller, tuple(rows))
        for seller, rows in sorted(found.items())
        if float(most_kwh[rows].sum()) > limit
    )
