"""Small auctions, and their best clearing by trying every set of bids.

Shares nothing with the engine: sets of bids are enumerated, and for each set the amounts are a
flow of least cost from sellers through bids to windows, found by shortest paths.

`python -m tests.harness.auction_by_hand 10000` compares so many random auctions and says
what differed.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator
from typing import NamedTuple

from marketplace_core.procurement.auction.clearing import clear_auction
from marketplace_core.procurement.auction.instance import Instance, Offer
from marketplace_core.procurement.auction.result import Outcome
from marketplace_core.procurement.auction.stages import Limits
from marketplace_core.procurement.need import Pricing

CLOSE = 1e-6
NO_HURRY = Limits(
    seconds_left=lambda: 60.0, unmet_seconds_left=lambda: 60.0, reason_seconds_left=lambda: 60.0
)


class Best(NamedTuple):
    unmet_kwh: float
    cost: float
    sets: tuple[frozenset[str], ...]
    """Every set of bids that is as good."""


def auction(number: int) -> Instance:
    """A random auction with up to eight bids; every rule occurs, often several at once."""
    chance = random.Random(number)
    windows, count = chance.randint(1, 4), chance.randint(0, 8)
    names = [f"b{at}" for at in range(count)]
    chance.shuffle(names)
    bids = tuple(_bid(chance, name, names, windows) for name in names)
    need = tuple(float(chance.choice([0, 5, 10, 20, 30, 45])) for _ in range(windows))
    return Instance(
        pricing=chance.choice(list(Pricing)),
        need_kw=need,
        hours=tuple(chance.choice([0.25, 0.5, 1.0]) for _ in range(windows)),
        max_share=chance.choice([None, None, 0.3, 0.5, 0.8, 1.0]),
        price_cap=chance.choice([None, None, 250.0]),
        bids=bids,
    )


def _bid(chance: random.Random, name: str, names: list[str], windows: int) -> Offer:
    fine = chance.random() < 0.3
    size = chance.choice([5, 10, 15, 20]) if not fine else round(chance.uniform(1, 25), 2)
    base = chance.choice([0, 50, 100, 100, 150, 200, 300])
    kw = tuple(0.0 if chance.random() < 0.25 else float(size) for _ in range(windows))
    return Offer(
        id=name,
        seller=chance.choice(["s1", "s2", "s3"]),
        kw=kw,
        price_per_mwh=tuple(
            float(base + (chance.choice([0, 10, 20]) if fine else 0)) for _ in range(windows)
        ),
        divisible=chance.random() < 0.5,
        min_kw=chance.choice([0.0, 0.0, 3.0, 10.0]),
        exclusive_group=chance.choice([None, None, None, "g1", "g2"]),
        requires=tuple(chance.sample(names, 1)) if chance.random() < 0.2 else (),
    )


def best(instance: Instance, *, with_bid: str | None = None) -> Best | None:
    """Least unmet, then least cost, over all sets of bids (that contain one); None if none can.

    A bid without a minimum counts as contained once it is awarded a little in some window.
    """
    found: list[tuple[float, float, frozenset[str]]] = []
    for chosen in _sets(instance):
        names = frozenset(bid.id for bid in chosen)
        if with_bid is not None and with_bid not in names:
            continue
        found += [
            (*value, names)
            for part in _parts(instance, with_bid)
            if (value := _value(instance, chosen, part)) is not None
        ]
    if not found:
        return None
    unmet = min(each[0] for each in found)
    cost = min(each[1] for each in found if each[0] <= unmet + CLOSE)
    sets = tuple(
        names for short, price, names in found if short <= unmet + CLOSE and price <= cost + CLOSE
    )
    return Best(unmet, cost, sets)


def _sets(instance: Instance) -> Iterator[tuple[Offer, ...]]:
    cap = instance.price_cap
    allowed = [bid for bid in instance.bids if cap is None or max(bid.price_per_mwh) <= cap]
    for count in range(len(allowed) + 1):
        for chosen in itertools.combinations(allowed, count):
            names = {bid.id for bid in chosen}
            groups = [bid.exclusive_group for bid in chosen if bid.exclusive_group is not None]
            if len(groups) == len(set(groups)) and all(
                set(bid.requires) <= names for bid in chosen
            ):
                yield chosen


def _parts(instance: Instance, with_bid: str | None) -> list[tuple[str, int] | None]:
    """Windows in which a bid without a minimum may get its little; else nothing special."""
    bid = next((each for each in instance.bids if each.id == with_bid), None)
    if bid is None or any(bid.least_kw(at) for at in range(instance.windows)):
        return [None]
    return [(bid.id, at) for at in range(instance.windows) if bid.kw[at] > 0]


def _value(
    instance: Instance, chosen: tuple[Offer, ...], little: tuple[str, int] | None
) -> tuple[float, float] | None:
    """Unmet kWh and cost of a set, its amounts chosen best; None if a limit forbids it."""
    left = [need * h for need, h in zip(instance.need_kw, instance.hours, strict=True)]
    limit = float("inf")
    if instance.max_share is not None:
        limit = instance.max_share * sum(left)
    room = {bid.seller: limit for bid in chosen}
    cost, arcs = 0.0, []
    for bid in chosen:
        for at, hours in enumerate(instance.hours):
            least = bid.kw[at] if not bid.divisible else min(bid.min_kw, bid.kw[at])
            if little == (bid.id, at):
                least += 0.01 * bid.kw[at]
            cost += least * hours * bid.price_per_mwh[at] / 1000
            left[at] -= least * hours
            room[bid.seller] -= least * hours
            arcs.append((bid.seller, at, (bid.kw[at] - least) * hours, bid.price_per_mwh[at]))
    if min(room.values(), default=0.0) < -1e-9:
        return None
    left = [max(0.0, kwh) for kwh in left]
    flow_cost = _flow(room, left, [arc for arc in arcs if arc[2] > 1e-12])
    return sum(left), cost + flow_cost


def _flow(
    room: dict[str, float], left: list[float], arcs: list[tuple[str, int, float, float]]
) -> float:
    """Push as much as possible at least cost (successive shortest paths); changes `left`."""
    pushed = [0.0] * len(arcs)
    total = 0.0
    while True:
        reach: dict[object, tuple[float, list[tuple[int, int]]]] = {
            seller: (0.0, []) for seller, kwh in room.items() if kwh > 1e-10
        }
        for _ in range(len(room) + len(left)):
            for number, (seller, at, most, price) in enumerate(arcs):
                for tail, head, free, step, sign in (
                    (seller, at, most - pushed[number], price, 1),
                    (at, seller, pushed[number], -price, -1),
                ):
                    if free > 1e-10 and tail in reach:
                        length = reach[tail][0] + step
                        if head not in reach or length < reach[head][0] - 1e-9:
                            reach[head] = (length, [*reach[tail][1], (number, sign)])
        ends = [at for at, kwh in enumerate(left) if kwh > 1e-10 and at in reach]
        if not ends:
            return total
        end = min(ends, key=lambda at: reach[at][0])
        path = reach[end][1]
        start = arcs[path[0][0]][0]
        most = min(
            left[end],
            room[start],
            *(arcs[n][2] - pushed[n] if sign > 0 else pushed[n] for n, sign in path),
        )
        for number, sign in path:
            pushed[number] += sign * most
            total += sign * most * arcs[number][3] / 1000
        left[end] -= most
        room[start] -= most


def faults(instance: Instance, outcome: Outcome) -> list[str]:
    """What is wrong with a clearing; none if it is the best one and within every rule."""
    wrong = _broken(instance, outcome)
    known = best(instance)
    assert known is not None, "taking nobody is always possible"
    if abs(outcome.unmet_kwh - known.unmet_kwh) > CLOSE:
        wrong.append(f"unmet {outcome.unmet_kwh} kWh, least is {known.unmet_kwh}")
    elif abs(outcome.objective - known.cost) > CLOSE:
        wrong.append(f"cost {outcome.objective}, least is {known.cost}")
    if outcome.gap is None or outcome.gap > CLOSE or not outcome.unmet_proven:
        wrong.append(f"gap {outcome.gap}, unmet proven {outcome.unmet_proven}")
    return wrong


def _broken(instance: Instance, outcome: Outcome) -> list[str]:
    """Rules that the awards break, whether they are the best or not."""
    by_id = {bid.id: bid for bid in instance.bids}
    taken = {award.bid: award for award in outcome.awards}
    lost = [each.bid for each in outcome.rejected]
    wrong = []
    if sorted([*taken, *lost]) != sorted(by_id):
        wrong.append("not every bid has exactly one fate")
    wrong += [f"{each.bid} has no reason" for each in outcome.rejected if not each.reason]
    groups = [by_id[name].exclusive_group for name in taken if by_id[name].exclusive_group]
    if len(groups) != len(set(groups)):
        wrong.append("two of one group")
    sold: dict[str, float] = {}
    for name, award in taken.items():
        bid = by_id[name]
        if not set(bid.requires) <= set(taken):
            wrong.append(f"{name} without what it requires")
        if instance.price_cap is not None and max(bid.price_per_mwh) > instance.price_cap:
            wrong.append(f"{name} is above the cap")
        for at, kw in enumerate(award.kw):
            least = bid.kw[at] if not bid.divisible else min(bid.min_kw, bid.kw[at])
            if not least - CLOSE <= kw <= bid.kw[at] + CLOSE:
                wrong.append(f"{name} is awarded {kw} kW in window {at}")
            sold[bid.seller] = sold.get(bid.seller, 0.0) + kw * instance.hours[at]
    return wrong + _sums(instance, outcome, sold)


def _sums(instance: Instance, outcome: Outcome, sold: dict[str, float]) -> list[str]:
    wrong = []
    if instance.max_share is not None:
        limit = instance.max_share * instance.needed_kwh + CLOSE
        wrong += [f"{seller} above its share" for seller, kwh in sold.items() if kwh > limit]
    for at, need in enumerate(instance.need_kw):
        awarded = sum(award.kw[at] for award in outcome.awards)
        if abs(outcome.unmet_kw[at] - max(0.0, need - awarded)) > CLOSE:
            wrong.append(f"unmet of window {at} is not what is missing")
    return wrong


def main(count: int) -> int:
    """Compare so many auctions; how many differed."""
    bad = 0
    for number in range(count):
        instance = auction(number)
        wrong = faults(instance, clear_auction(instance, NO_HURRY))
        if wrong:
            bad += 1
            print(f"auction {number}: {'; '.join(wrong)}")  # noqa: T201
    print(f"{count} auctions, {bad} differ from the best by hand")  # noqa: T201
    return bad


if __name__ == "__main__":
    sys.exit(1 if main(int(sys.argv[1])) else 0)
