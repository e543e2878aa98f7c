"""Bids that cannot be taken whatever the others are, each with the reason."""

from __future__ import annotations

import enum

from marketplace_core.procurement.auction.instance import Instance, Offer
from marketplace_core.procurement.auction.result import Rejection


class Cause(enum.Enum):
    """Kinds of reasons."""

    PRICE_CAP = "price_above_cap"
    NOTHING_OFFERED = "nothing_offered"
    REQUIRED_OUT = "required_bid_out"
    IMPOSSIBLE = "impossible_by_itself"
    """Its requirements exclude each other, or they alone exceed a limit."""
    UNMET = "leaves_more_unmet"
    COST = "costs_more"
    TIE = "tie"
    NOT_BEST = "not_cheaper"
    """Proven that no clearing with it is better, but not by how much it is worse."""
    NOT_FOUND = "not_in_best_found"
    GREEDY = "greedy_rule"


def admit(instance: Instance) -> tuple[list[Offer], list[Rejection]]:
    """The bids that can be taken, and why the others cannot."""
    by_id = {bid.id: bid for bid in instance.bids}
    out: dict[str, tuple[Cause, str]] = {}
    for bid in instance.bids:
        if capped := _alone(instance, bid):
            out[bid.id] = capped
    required = {other for bid in instance.bids for other in bid.requires if other != bid.id}
    for bid in instance.bids:
        if bid.id not in out and bid.id not in required and not any(bid.kw):
            out[bid.id] = Cause.NOTHING_OFFERED, "it offers 0 kW in every window"
    while found := _without_required(by_id, out):
        out.update(found)
    for bid in instance.bids:
        if bid.id not in out and (reason := _impossible(instance, by_id, bid)):
            out[bid.id] = Cause.IMPOSSIBLE, reason
    eligible = [bid for bid in instance.bids if bid.id not in out]
    rejected = [
        Rejection(bid=name, kind=cause.value, reason=reason, exact=True)
        for name, (cause, reason) in out.items()
    ]
    return eligible, rejected


def _alone(instance: Instance, bid: Offer) -> tuple[Cause, str] | None:
    if instance.price_cap is None:
        return None
    window = max(range(instance.windows), key=lambda at: (bid.price_per_mwh[at], -at))
    asked = bid.price_per_mwh[window]
    if asked <= instance.price_cap:
        return None
    return Cause.PRICE_CAP, (
        f"it asks {asked:g} per MWh in window {window}, above the price cap of"
        f" {instance.price_cap:g}"
    )


def _without_required(
    by_id: dict[str, Offer], out: dict[str, tuple[Cause, str]]
) -> dict[str, tuple[Cause, str]]:
    """Bids that require one that is out or that nobody made."""
    found: dict[str, tuple[Cause, str]] = {}
    for bid in by_id.values():
        if bid.id in out:
            continue
        for other in bid.requires:
            if other not in by_id:
                found[bid.id] = (
                    Cause.REQUIRED_OUT,
                    (f"it requires {other}, and there is no such bid"),
                )
            elif other in out:
                found[bid.id] = (
                    Cause.REQUIRED_OUT,
                    (f"it requires {other}, which is out: {out[other][1]}"),
                )
    return found


def _impossible(instance: Instance, by_id: dict[str, Offer], bid: Offer) -> str:
    """Why a bid and all that it requires can never be taken together; empty if they can."""
    together = closure(by_id, bid)
    groups: dict[str, str] = {}
    for each in together:
        if each.exclusive_group is not None:
            other = groups.setdefault(each.exclusive_group, each.id)
            if other != each.id:
                return (
                    f"{other} and {each.id} would be taken together by its requirements, and both"
                    f" are in the exclusive group {each.exclusive_group}"
                )
    limit = instance.share_limit_kwh
    if limit is None:
        return ""
    for seller in sorted({each.seller for each in together}):
        least = sum(
            each.least_kw(window) * instance.hours[window]
            for each in together
            if each.seller == seller
            for window in range(instance.windows)
        )
        if least > limit * (1 + 1e-9) + 1e-12:
            return (
                f"seller {seller} would be awarded {least:.6g} kWh by it and what it requires,"
                f" above its limit of {limit:.6g} kWh ({instance.max_share:g} of the need)"
            )
    return ""


def closure(by_id: dict[str, Offer], bid: Offer) -> list[Offer]:
    """A bid and all that it requires, directly or not."""
    found, todo = {bid.id: bid}, [bid]
    while todo:
        for other in todo.pop().requires:
            if other not in found:
                found[other] = by_id[other]
                todo.append(by_id[other])
    return list(found.values())
