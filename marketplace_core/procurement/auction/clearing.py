"""Clear an auction: the whole of it, from an instance to its outcome."""

from __future__ import annotations

import msgspec
import numpy as np

from marketplace_core.procurement.auction.admission import admit
from marketplace_core.procurement.auction.greedy import Walk
from marketplace_core.procurement.auction.instance import Instance
from marketplace_core.procurement.auction.parts import parts
from marketplace_core.procurement.auction.pricing import pay, uniform_prices
from marketplace_core.procurement.auction.reasons import reasons
from marketplace_core.procurement.auction.result import Method, OfferAward, Outcome, Rejection
from marketplace_core.procurement.auction.stages import Limits, Settled, settle
from marketplace_core.procurement.auction.tableau import FloatArray, tableau

_NEGLIGIBLE = 1e-8
"""Of the need of a window, or of a bid: less is rounding."""
_DECIMALS = 9


def clear_auction(instance: Instance, limits: Limits) -> Outcome:
    """Least unmet energy, then least cost, then price and id; every loser gets its reason."""
    eligible, rejected = admit(instance)
    table = tableau(instance, eligible)
    pieces = parts(table)
    settled: list[Settled] = []
    left = sum(piece.size for piece in pieces)
    for piece in pieces:
        settled.append(settle(piece, _part_of(limits, piece.size / max(left, 1))))
        left -= piece.size
    kw = np.zeros((table.size, instance.windows))
    taken: set[str] = set()
    for each in settled:
        for row, bid in enumerate(each.table.bids):
            kw[table.number[bid.id]] = each.kw[row]
            if each.taken[row]:
                taken.add(bid.id)
    kw = np.round(kw, _DECIMALS)
    prices = uniform_prices(instance, table.bids, kw)
    for each in settled:
        rejected += reasons(instance, each, prices, limits.reason_seconds_left)
    amounts = {bid.id: kw[row] for row, bid in enumerate(table.bids) if bid.id in taken}
    return _certified(_outcome(instance, amounts, rejected, prices, Method.EXACT), settled)


def clear_greedily(instance: Instance) -> Outcome:
    """By the greedy rule; nothing is proven."""
    eligible, rejected = admit(instance)
    walk = Walk(instance, eligible)
    walk.run()
    bids = tuple(bid for bid in eligible if bid.id in walk.awarded)
    kw = np.array([walk.awarded[bid.id] for bid in bids]).reshape(len(bids), instance.windows)
    prices = uniform_prices(instance, bids, kw)
    return _outcome(
        instance, walk.awarded, [*rejected, *walk.rejected], prices, Method.GREEDY
    )  # fmt: skip


def _part_of(limits: Limits, share: float) -> Limits:
    """The limits for one part, of the time that is left."""
    left, unmet = limits.seconds_left() * (1 - share), limits.unmet_seconds_left() * (1 - share)
    return msgspec.structs.replace(
        limits,
        seconds_left=lambda: limits.seconds_left() - left,
        unmet_seconds_left=lambda: limits.unmet_seconds_left() - unmet,
    )


def _outcome(
    instance: Instance,
    amounts: dict[str, FloatArray],
    rejected: list[Rejection],
    prices: tuple[float | None, ...],
    method: Method,
) -> Outcome:
    by_id = {bid.id: bid for bid in instance.bids}
    as_bid = (None,) * instance.windows
    need, hours = np.array(instance.need_kw), np.array(instance.hours)
    awarded = sum(amounts.values(), np.zeros(instance.windows))
    short = need - awarded
    short = np.where(short > _NEGLIGIBLE * np.maximum(need, 1.0), short, 0.0)
    return Outcome(
        objective=sum(pay(instance, by_id[name], kw, as_bid) for name, kw in amounts.items()),
        unmet_kw=tuple(short.tolist()),
        awards=tuple(
            OfferAward(
                bid=name, kw=tuple(kw.tolist()), pay=pay(instance, by_id[name], kw, prices)
            )
            for name, kw in sorted(amounts.items())
        ),
        rejected=tuple(sorted(rejected, key=lambda each: each.bid)),
        gap=None, bound=0.0, unmet_kwh=float(short @ hours), unmet_bound_kwh=0.0,
        unmet_proven=False, ties_settled=False, prices=prices, method=method,
    )  # fmt: skip


def _certified(outcome: Outcome, settled: list[Settled]) -> Outcome:
    """With what the parts have proven."""
    objective = outcome.objective
    nobody = outcome.unmet_kwh - sum(each.unmet_kwh for each in settled)
    unmet_proven = all(each.unmet_proven for each in settled)
    optimal = all(each.optimum.proven for each in settled)
    bound = objective if optimal else sum(max(0.0, each.optimum.bound) for each in settled)
    gap = max(0.0, (objective - bound) / objective) if objective > 0 else 0.0
    return msgspec.structs.replace(
        outcome,
        gap=gap if unmet_proven else None,
        bound=min(bound, objective),
        unmet_bound_kwh=max(0.0, nobody) + sum(max(0.0, each.unmet_bound_kwh) for each in settled),
        unmet_proven=unmet_proven,
        ties_settled=all(each.ties_settled for each in settled),
    )
