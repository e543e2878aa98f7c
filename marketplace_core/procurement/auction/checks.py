"""Whether a recorded clearing keeps the rules, and whether clearing again says the same."""

from __future__ import annotations

import math

import msgspec

from marketplace_core.procurement.auction.instance import KWH_PER_MWH, Instance, Offer
from marketplace_core.procurement.auction.result import Method, Outcome

_CLOSE = 1e-6


class RecordedAward(msgspec.Struct, frozen=True):
    """An award as it stands in a file."""

    bid: str
    kw: list[float]
    pay: float


class RecordedRejection(msgspec.Struct, frozen=True):
    """A rejection as it stands in a file."""

    bid: str
    reason: str


class Recorded(msgspec.Struct, frozen=True):
    """A result as it stands in a file."""

    objective: float
    unmet_kw: list[float]
    awards: list[RecordedAward]
    rejected: list[RecordedRejection]
    gap: float | None


def recorded(outcome: Outcome) -> Recorded:
    """An outcome in the form in which it is filed."""
    return Recorded(
        objective=outcome.objective,
        unmet_kw=list(outcome.unmet_kw),
        awards=[RecordedAward(each.bid, list(each.kw), each.pay) for each in outcome.awards],
        rejected=[RecordedRejection(each.bid, each.reason) for each in outcome.rejected],
        gap=outcome.gap,
    )


def broken_rules(instance: Instance, result: Recorded) -> list[str]:
    """Every rule of the auction that a recorded result breaks, in words."""
    by_id = {bid.id: bid for bid in instance.bids}
    fates = [*(award.bid for award in result.awards), *(each.bid for each in result.rejected)]
    if sorted(fates) != sorted(by_id):
        return ["not every bid of the instance is either awarded or rejected, once"]
    if len(result.unmet_kw) != instance.windows or any(
        len(award.kw) != instance.windows for award in result.awards
    ):
        return [f"not every list has one number for each of {instance.windows} windows"]
    wrong = [
        f"{each.bid} is rejected without a reason" for each in result.rejected if not each.reason
    ]
    for award in result.awards:
        wrong += _award(instance, by_id[award.bid], award)
    return wrong + _together(instance, by_id, result) + _sums(instance, by_id, result)


def _award(instance: Instance, bid: Offer, award: RecordedAward) -> list[str]:
    wrong = [
        f"{bid.id} is awarded {kw:g} kW in window {at}, not between {bid.least_kw(at):g} and"
        f" {bid.kw[at]:g}"
        for at, kw in enumerate(award.kw)
        if not bid.least_kw(at) - _CLOSE <= kw <= bid.kw[at] + _CLOSE
    ]
    if instance.price_cap is not None and max(bid.price_per_mwh) > instance.price_cap:
        wrong.append(f"{bid.id} asks more than the price cap of {instance.price_cap:g}")
    if award.pay < _cost(instance, bid, award) * (1 - _CLOSE) - _CLOSE:
        wrong.append(f"{bid.id} is paid {award.pay:g}, less than it asks")
    return wrong


def _cost(instance: Instance, bid: Offer, award: RecordedAward) -> float:
    return math.fsum(
        kw * hours * price / KWH_PER_MWH
        for kw, hours, price in zip(award.kw, instance.hours, bid.price_per_mwh, strict=True)
    )


def _together(instance: Instance, by_id: dict[str, Offer], result: Recorded) -> list[str]:
    taken = {award.bid for award in result.awards}
    wrong = [
        f"{name} is awarded without {other}, which it requires"
        for name in sorted(taken)
        for other in by_id[name].requires
        if other not in taken
    ]
    groups: dict[str, str] = {}
    sold: dict[str, float] = {}
    for award in result.awards:
        bid = by_id[award.bid]
        if bid.exclusive_group is not None:
            first = groups.setdefault(bid.exclusive_group, bid.id)
            if first != bid.id:
                wrong.append(f"{first} and {bid.id} are both awarded and exclusive")
        kwh = math.fsum(kw * hours for kw, hours in zip(award.kw, instance.hours, strict=True))
        sold[bid.seller] = sold.get(bid.seller, 0.0) + kwh
    limit = instance.share_limit_kwh
    if limit is not None:
        wrong += [
            f"seller {seller} is awarded {kwh:g} kWh, above its limit of {limit:g}"
            for seller, kwh in sorted(sold.items())
            if kwh > limit + _CLOSE * max(1.0, limit)
        ]
    return wrong


def _sums(instance: Instance, by_id: dict[str, Offer], result: Recorded) -> list[str]:
    wrong = []
    for at, need in enumerate(instance.need_kw):
        short = max(0.0, need - math.fsum(award.kw[at] for award in result.awards))
        if abs(result.unmet_kw[at] - short) > _CLOSE * max(1.0, need):
            wrong.append(f"window {at} is short of {short:g} kW, not of {result.unmet_kw[at]:g}")
    cost = math.fsum(_cost(instance, by_id[award.bid], award) for award in result.awards)
    if abs(result.objective - cost) > _CLOSE * max(1.0, cost):
        wrong.append(f"the awards cost {cost:g}, not {result.objective:g}")
    return wrong


def differences(instance: Instance, result: Recorded, again: Outcome) -> list[str]:
    """Where a recorded result and another clearing of the same instance contradict each other.

    Two clearings that are both proven, ties included, are the same award by award. Of one that
    is not proven the claim is checked: nobody found it to leave more unmet or to be further
    from the least cost than its gap says.
    """
    unmet = math.fsum(kw * h for kw, h in zip(result.unmet_kw, instance.hours, strict=True))
    needed = max(1.0, instance.needed_kwh)
    if again.method is Method.EXACT and unmet > again.unmet_kwh + _CLOSE * needed:
        return [f"{unmet:g} kWh are unmet, and {again.unmet_kwh:g} kWh is possible"]
    if again.unmet_proven and unmet < again.unmet_bound_kwh - _CLOSE * needed:
        return [f"{unmet:g} kWh unmet is less than the proven least of {again.unmet_bound_kwh:g}"]
    close = _CLOSE * max(1.0, again.objective)
    gap = result.gap
    if gap is None:
        return _same(result, again, close) if again.method is Method.GREEDY else []
    claimed = result.objective * (1 - gap)
    if again.objective < claimed - close:
        return [f"no less than {claimed:g} was claimed to be possible, {again.objective:g} is"]
    if again.gap is not None and result.objective < again.bound - close:
        return [f"a cost of {result.objective:g} is below the proven least of {again.bound:g}"]
    proven = again.ties_settled and gap <= _CLOSE
    return _same(result, again, close) if proven else []


def _same(result: Recorded, again: Outcome, close: float) -> list[str]:
    """Award by award."""
    mine = {award.bid: award for award in result.awards}
    theirs = {award.bid: award for award in again.awards}
    wrong = [f"{name} is awarded, and should not be" for name in sorted(mine.keys() - theirs)]
    wrong += [f"{name} is not awarded, and should be" for name in sorted(theirs.keys() - mine)]
    for name in sorted(mine.keys() & theirs):
        pairs = zip(mine[name].kw, theirs[name].kw, strict=True)
        if any(abs(a - b) > _CLOSE * max(1.0, b) for a, b in pairs):
            wrong.append(f"{name} is awarded other amounts")
        elif abs(mine[name].pay - theirs[name].pay) > close:
            wrong.append(f"{name} is paid {mine[name].pay:g}, and should be {theirs[name].pay:g}")
    return wrong
