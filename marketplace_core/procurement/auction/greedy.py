"""The rule everybody can follow by hand, over windows: the comparison for the exact clearing.

Bids are walked by mean price, then id. An indivisible bid is taken if it fits into what remains
of the need in every window where it offers; a divisible one is cut to what remains, but not
below its own minimum. What a bid requires is taken with it or not at all; one of a group; no
seller above its limit. Source: the rule `greedy_prisma` of the clearing of single needs.
"""

from __future__ import annotations

import numpy as np

from marketplace_core.procurement.auction.admission import Cause, closure
from marketplace_core.procurement.auction.instance import Instance, Offer
from marketplace_core.procurement.auction.result import Rejection
from marketplace_core.procurement.auction.tableau import FloatArray

_NEGLIGIBLE = 1e-9


class Walk:
    """One walk down the merit order."""

    def __init__(self, instance: Instance, eligible: list[Offer]) -> None:
        """`eligible` are the bids that the instance admits."""
        self._instance = instance
        self._by_id = {bid.id: bid for bid in eligible}
        self._hours = np.array(instance.hours)
        self._remaining = np.array(instance.need_kw)
        self._sold: dict[str, float] = {}
        self._groups: dict[str, str] = {}
        self.awarded: dict[str, FloatArray] = {}
        """Awarded kW by window, by bid."""
        self.rejected: list[Rejection] = []

    def run(self) -> None:
        """Walk all bids."""
        ranked = sorted(
            self._by_id.values(), key=lambda bid: (bid.mean_price(self._instance.hours), bid.id)
        )
        refused = {
            bid.id: reason
            for bid in ranked
            if bid.id not in self.awarded and (reason := self._take_with_required(bid))
        }
        self.rejected = [
            Rejection(bid=name, reason=reason, kind=Cause.GREEDY.value)
            for name, reason in refused.items()
            if name not in self.awarded
        ]

    def _take_with_required(self, bid: Offer) -> str:
        """Take a bid and what it requires; why not, and nothing is taken, if one does not fit."""
        before = (
            self._remaining.copy(), dict(self._sold), dict(self._groups), dict(self.awarded)
        )  # fmt: skip
        for each in closure(self._by_id, bid):
            if each.id in self.awarded:
                continue
            if reason := self._take(each):
                self._remaining, self._sold, self._groups, self.awarded = before
                return reason if each is bid else f"it requires {each.id}, and {reason}"
        return ""

    def _take(self, bid: Offer) -> str:
        group = bid.exclusive_group
        if group is not None and group in self._groups:
            return f"{bid.id} is exclusive with {self._groups[group]}, which was taken before"
        offered = np.array(bid.kw)
        least = np.array([bid.least_kw(window) for window in range(len(offered))])
        kw = np.maximum(least, np.minimum(offered, self._remaining))
        kw = self._within_limit(bid, kw, least)
        over = np.flatnonzero(kw > self._remaining + _NEGLIGIBLE)
        if len(over):
            at = int(over[0])
            what = "its least of" if bid.divisible else "indivisible"
            return (
                f"{what} {least[at]:g} kW of {bid.id} does not fit into the remaining"
                f" {self._remaining[at]:g} kW of window {at}"
            )
        if not kw.any() and offered.any():
            return (
                f"the need was met before {bid.id} in every window, or its seller is at its limit"
            )
        return self._accept(bid, kw)

    def _within_limit(self, bid: Offer, kw: FloatArray, least: FloatArray) -> FloatArray:
        """Cut a divisible bid to what its seller may still be awarded."""
        limit = self._instance.share_limit_kwh
        more = float((kw - least) @ self._hours)
        if limit is None or more <= 0:
            return kw
        room = limit - self._sold.get(bid.seller, 0.0) - float(least @ self._hours)
        return np.asarray(least + (kw - least) * min(1.0, max(0.0, room / more)))

    def _accept(self, bid: Offer, kw: FloatArray) -> str:
        kwh, limit = float(kw @ self._hours), self._instance.share_limit_kwh
        sold = self._sold.get(bid.seller, 0.0) + kwh
        if limit is not None and sold > limit * (1 + _NEGLIGIBLE):
            return f"{bid.id} would bring {bid.seller} above its limit of {limit:.6g} kWh"
        self._sold[bid.seller] = sold
        if bid.exclusive_group is not None:
            self._groups[bid.exclusive_group] = bid.id
        self.awarded[bid.id] = kw
        self._remaining = np.maximum(0.0, self._remaining - kw)
        return ""
