"""Bids and instances of auctions, written short."""

from __future__ import annotations

from typing import Any

from marketplace_core.procurement.auction.clearing import clear_auction
from marketplace_core.procurement.auction.instance import Instance, Offer
from marketplace_core.procurement.auction.result import Outcome, Rejection
from marketplace_core.procurement.need import Pricing
from tests.harness.auction_by_hand import NO_HURRY


def offer(name: str, kw: float | list[float], price: float | list[float], **fields: Any) -> Offer:
    """An indivisible bid of a seller of its own, over as many windows as `kw` has."""
    powers = kw if isinstance(kw, list) else [kw]
    prices = price if isinstance(price, list) else [price] * len(powers)
    given = {"divisible": False, "seller": f"seller of {name}", **fields}
    return Offer(id=name, kw=tuple(powers), price_per_mwh=tuple(prices), **given)


def instance(need: float | list[float], *bids: Offer, **fields: Any) -> Instance:
    """One-hour windows, paid as bid."""
    needs = need if isinstance(need, list) else [need]
    given: dict[str, Any] = {
        "pricing": Pricing.PAY_AS_BID, "hours": tuple(1.0 for _ in needs), **fields
    }  # fmt: skip
    return Instance(need_kw=tuple(needs), bids=bids, **given)


def cleared(need: float | list[float], *bids: Offer, **fields: Any) -> Outcome:
    """The exact clearing, with time enough."""
    return clear_auction(instance(need, *bids, **fields), NO_HURRY)


def awarded(outcome: Outcome) -> dict[str, tuple[float, ...]]:
    """Awarded kW by bid."""
    return {award.bid: award.kw for award in outcome.awards}


def why(outcome: Outcome, bid: str) -> Rejection:
    """Why a bid was not taken."""
    return next(each for each in outcome.rejected if each.bid == bid)
