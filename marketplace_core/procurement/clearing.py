"""Clear an auction by the greedy rule, with a reason for every bid.

The rule walks the bids by price. An indivisible bid is taken whole or not at all; a
divisible one may be cut to what remains, but not below its own minimum; divisible
bids at one price share what remains pro rata. Greedy leaves gaps that an optimal
clearing would close: it is the rule everybody can follow by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Final

from marketplace_core.ids import ContractId
from marketplace_core.procurement.bid import Award, Bid, Clearing
from marketplace_core.procurement.contract import Contract
from marketplace_core.procurement.need import Need, Pricing
from marketplace_core.provenance import Confidence, Rule, Source
from marketplace_core.registry.asset import Asset
from marketplace_core.units import Kw

GREEDY_PRISMA: Final = Rule(
    id="greedy_prisma",
    title="By price: the whole bid if it fits, else the remainder, else the next bid",
    sources=(
        Source(
            states="whole, remainder or next; pro rata at equal prices",
            work="PRISMA, uniform price allocation",
            as_of="2026-11",
            confidence=Confidence.READ,
        ),
        Source(
            states="at equal prices indivisible bids are tried before divisible ones share",
            work="Flexway",
            as_of="2026-11",
            confidence=Confidence.OWN,
        ),
    ),
)

_NEGLIGIBLE_KW: Final = 1e-6
"""A milliwatt: less than this of a need counts as met, so that rounding awards nobody."""


def clear(need: Need, bids: Iterable[Bid]) -> Clearing:
    """Clear one need; every bid gets its award or rejection and the reason.

    The outcome does not depend on the order of `bids`. Awards sum to at most the need.
    """
    ranked = sorted(bids, key=lambda bid: (bid.utilisation_price, bid.id))
    walk = _Walk(need)
    for bid in ranked:
        if reason := _ineligible(need, bid):
            walk.reject(bid, reason)
    eligible = [bid for bid in ranked if bid.id not in walk.outcome]
    walk.rank = {bid.id: number for number, bid in enumerate(eligible, start=1)}
    for _, level in groupby(eligible, key=lambda bid: bid.utilisation_price):
        walk.fill(list(level))
    return Clearing(
        need_id=need.id,
        awards=_awards(need, ranked, walk.outcome),
        unmet_kw=Kw(walk.remaining),
        method=GREEDY_PRISMA.id,
    )


def contracts_from(
    need: Need,
    clearing: Clearing,
    bids: Iterable[Bid],
    assets: Mapping[str, Asset],
    new_id: Callable[[str], str],
) -> tuple[Contract, ...]:
    """Contracts offered for signature to the winners, in merit order.

    `assets` holds at least the assets of the winning bids, by id; `new_id` makes an id
    from a prefix.
    """
    by_id = {bid.id: bid for bid in bids}
    return tuple(
        _contract(need, award, by_id[award.bid_id], assets, ContractId(new_id("ctr")))
        for award in clearing.awards
        if award.accepted
    )


class _Walk:
    """The state of one walk down the merit order."""

    def __init__(self, need: Need) -> None:
        self.remaining = float(need.kw)
        self.outcome: dict[str, tuple[float, str]] = {}
        self.rank: dict[str, int] = {}

    def reject(self, bid: Bid, reason: str) -> None:
        self.outcome[bid.id] = (0.0, f"rejected: {reason}")

    def fill(self, level: Sequence[Bid]) -> None:
        """Serve the bids of one price level, given in the order of their ids."""
        for bid in level:
            if not bid.divisible:
                self._take_whole(bid)
        divisible = [bid for bid in level if bid.divisible]
        if self.remaining > 0:
            self._share(_sharing(divisible, self.remaining))
        for bid in divisible:
            if bid.id not in self.outcome:
                self._take_part(bid)

    def _share(self, bids: Sequence[Bid]) -> None:
        """Serve bids of one price, each in proportion to what it offers."""
        scale = min(1.0, self.remaining / sum(bid.kw for bid in bids)) if bids else 1.0
        because = "that was what remained of the need"
        if len(bids) > 1:
            because = (
                f"what remained of the need was shared pro rata among {len(bids)} bids at this"
                " price"
            )
        for bid in bids:
            self._accept(bid, bid.kw * scale, because)

    def _take_whole(self, bid: Bid) -> None:
        if bid.kw <= self.remaining + _NEGLIGIBLE_KW:
            self._accept(bid, bid.kw)
        elif self.remaining == 0:
            self.reject(bid, self._met(bid))
        else:
            self.reject(
                bid,
                f"indivisible {_kw(bid.kw)} does not fit into the remaining {_kw(self.remaining)}",
            )

    def _take_part(self, bid: Bid) -> None:
        part = min(bid.kw, self.remaining)
        if self.remaining == 0:
            self.reject(bid, self._met(bid))
        elif part < bid.min_kw - _NEGLIGIBLE_KW:
            self.reject(
                bid,
                f"the remaining {_kw(part)} is below this bid's own minimum of {_kw(bid.min_kw)}",
            )
        else:
            self._accept(bid, part, "that was what remained of the need")

    def _accept(self, bid: Bid, kw: float, because: str = "") -> None:
        left = self.remaining - kw
        self.remaining = 0.0 if left < _NEGLIGIBLE_KW else left
        rank = self.rank[bid.id]
        if kw < bid.kw:
            reason = f"accepted at rank {rank} and cut to {_kw(kw)}: {because}"
        else:
            reason = f"accepted in full at rank {rank}"
        self.outcome[bid.id] = (kw, reason)

    def _met(self, bid: Bid) -> str:
        return f"the need was already met before rank {self.rank[bid.id]}"


def _ineligible(need: Need, bid: Bid) -> str:
    if bid.need_id != need.id:
        return f"it was made for need {bid.need_id}, not for {need.id}"
    if bid.utilisation_price > need.price_cap:
        return (
            f"asked {bid.utilisation_price} above the price cap {need.price_cap}"
            f" {need.currency} per MWh"
        )
    if bid.kw <= 0:
        return f"{_kw(bid.kw)} is no offer"
    if bid.kw < need.min_bid_kw:
        return f"{_kw(bid.kw)} is below the buyer's minimum of {_kw(need.min_bid_kw)}"
    return ""


def _sharing(bids: Sequence[Bid], remaining: float) -> list[Bid]:
    """Bids of one price that can share `remaining`: the least divisible drop out first."""
    sharing = list(bids)
    while sharing:
        scale = min(1.0, remaining / sum(bid.kw for bid in sharing))
        short = [bid for bid in sharing if bid.kw * scale < bid.min_kw - _NEGLIGIBLE_KW]
        if not short:
            break
        sharing.remove(max(short, key=lambda bid: (bid.min_kw / bid.kw, bid.id)))
    return sharing


def _awards(
    need: Need, ranked: Sequence[Bid], outcome: Mapping[str, tuple[float, str]]
) -> tuple[Award, ...]:
    paid = [bid.utilisation_price for bid in ranked if outcome[bid.id][0] > 0]
    uniform = max(paid) if paid and need.pricing is Pricing.PAY_AS_CLEAR else None
    return tuple(_award(bid, *outcome[bid.id], uniform) for bid in ranked)


def _award(bid: Bid, kw: float, reason: str, uniform: Decimal | None) -> Award:
    accepted = kw > 0
    price = bid.utilisation_price
    if accepted and uniform is not None:
        price = uniform
        reason = f"{reason}; paid the clearing price {uniform} per MWh"
    return Award(
        bid_id=bid.id, seller=bid.seller, accepted=accepted, kw=Kw(kw), price=price, reason=reason
    )


def _contract(
    need: Need, award: Award, bid: Bid, assets: Mapping[str, Asset], contract_id: ContractId
) -> Contract:
    return Contract(
        id=contract_id,
        need_id=need.id,
        bid_id=bid.id,
        buyer=need.buyer,
        seller=bid.seller,
        feeder=need.feeder,
        direction=need.direction,
        kw=award.kw,
        window=need.window,
        utilisation_price=award.price,
        currency=need.currency,
        assets=bid.assets,
        measurement_point=assets[bid.assets[0]].measurement_point,
        baseline=bid.baseline or need.baseline,
        terms=need.terms,
    )


def _kw(kw: float) -> str:
    return f"{kw:.3f}".rstrip("0").rstrip(".") + " kW"
