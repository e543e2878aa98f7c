"""Why each bid that could have been taken was not.

The claim of a reason is about the best clearing *with* the bid: it leaves more unmet, it costs
more, or as much and the tie went the other way. In a small part of an auction that clearing
is computed, bid by bid. In a large one the reduced costs of the relaxation prove what they can:
a clearing with the bid costs at least the relaxation's bound plus the bid's reduced cost. What
nothing proves is said to be no more than it is: not in the best clearing found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from marketplace_core.procurement.auction import highs
from marketplace_core.procurement.auction.admission import Cause
from marketplace_core.procurement.auction.instance import Instance
from marketplace_core.procurement.auction.model import UNMET_SLACK, with_row
from marketplace_core.procurement.auction.program import Program
from marketplace_core.procurement.auction.result import Rejection
from marketplace_core.procurement.auction.stages import Settled
from marketplace_core.procurement.auction.ties import EQUAL, some_part
from marketplace_core.procurement.need import Pricing

_SMALL: Final = 60
"""Up to so many bids in a part, the best clearing with each loser is computed."""
_NODES: Final = 5000
_NEGLIGIBLE: Final = 1e-9


_OF_ANY_PART: Final = {
    Cause.COST: "the need is covered at less cost without it: taking any part of it would raise the"
    " cost",
    Cause.UNMET: "taking any part of it would leave more of the need unmet",
}


class _Claim(msgspec.Struct, frozen=True, kw_only=True):
    cause: Cause
    words: str
    cost: float | None = None
    unmet: float | None = None
    exact: bool = False


def reasons(
    instance: Instance,
    settled: Settled,
    prices: tuple[float | None, ...],
    seconds_left: Callable[[], float],
) -> list[Rejection]:
    """A reason for every bid of a part that was not taken."""
    small = settled.table.size <= _SMALL
    found = []
    for row in np.flatnonzero(~settled.taken):
        claim = None
        if small and settled.unmet_proven and seconds_left() > 0:
            claim = _computed(settled, int(row), seconds_left)
        claim = claim or _bounded(settled, int(row))
        bid = settled.table.bids[row]
        facts = [*_beside(settled, int(row)), claim.words]
        if instance.pricing is Pricing.PAY_AS_CLEAR and _paradoxical(settled, int(row), prices):
            facts.append(
                "paradoxically rejected: it asks no more than the clearing price wherever it"
                " could have served"
            )
        found.append(
            Rejection(
                bid=bid.id, reason="; ".join(facts), kind=claim.cause.value,
                extra_cost=claim.cost, extra_unmet_kwh=claim.unmet, exact=claim.exact,
            )
        )  # fmt: skip
    return found


def _beside(settled: Settled, row: int) -> list[str]:
    """What of the outcome stands in the bid's way, as facts."""
    table, taken = settled.table, settled.taken
    facts = [
        f"exclusive with {table.bids[other].id}, which was taken"
        for group in table.groups
        if row in group
        for other in group
        if taken[other]
    ]
    facts += [
        f"requires {table.bids[other].id}, which was not taken"
        for bid, other in table.requires
        if bid == row and not taken[other]
    ]
    limit = table.share_limit_kwh
    for seller, mine in table.sellers:
        if row in mine and limit is not None:
            awarded = float((settled.kw[list(mine)] @ table.hours).sum())
            with_it = awarded + float(table.least[row] @ table.hours)
            if with_it > limit * (1 + EQUAL):
                facts.append(
                    f"in addition to what {seller} is awarded it would make {with_it:.6g} kWh,"
                    f" above the seller's limit of {limit:.6g} kWh"
                )
    if not ((table.most[row] > 0) & (table.need > 0)).any():
        facts.append("nothing is needed in any window in which it offers")
    return facts


def _computed(settled: Settled, row: int, seconds_left: Callable[[], float]) -> _Claim | None:
    """The best clearing with the bid, computed; None when it takes too long."""
    claim = _compared(settled, row, seconds_left)
    if claim is None or settled.table.least[row].any() or claim.cause not in _OF_ANY_PART:
        return claim
    # A bid without a minimum can be taken for next to nothing: there is no amount to tell.
    return _Claim(cause=claim.cause, words=_OF_ANY_PART[claim.cause])


def _compared(settled: Settled, row: int, seconds_left: Callable[[], float]) -> _Claim | None:
    if settled.optimum.proven:
        found = _with(settled, settled.program, row, seconds_left)
        if found is None:
            return None
        if found.x is not None:
            return _by_cost(settled, found.bound - settled.optimum.value, exact=True)
    return _by_unmet(settled, row, seconds_left)


def _by_unmet(settled: Settled, row: int, seconds_left: Callable[[], float]) -> _Claim | None:
    found = _with(settled, settled.model.unmet, row, seconds_left)
    if found is None:
        return None
    if found.x is None:
        return _Claim(
            cause=Cause.IMPOSSIBLE, exact=True, words="no clearing within the rules contains it"
        )
    more = found.bound * settled.model.needed_kwh - settled.unmet_kwh
    if more <= 2 * UNMET_SLACK * settled.model.needed_kwh:
        return None
    return _Claim(
        cause=Cause.UNMET, unmet=more, exact=True,
        words=f"taking it would leave {more:.6g} kWh more of the need unmet",
    )  # fmt: skip


def _with(
    settled: Settled, program: Program, row: int, seconds_left: Callable[[], float]
) -> highs.Solved | None:
    """Solve with a bid held in, awarded more than nothing; None if that did not end."""
    table = settled.table
    lower = program.lower.copy()
    lower[row] = 1.0
    held = program.with_bounds(lower, program.upper)
    if not table.least[row].any():
        coefficients, least = some_part(table, settled.model, row)
        if not coefficients.any():
            return None
        held = with_row(held, -coefficients / least, -1.0)
    found = highs.solve(held, seconds_left(), nodes=_NODES)
    return found if found.ended else None


def _by_cost(settled: Settled, extra: float, *, exact: bool) -> _Claim:
    scale = max(abs(settled.optimum.value), _NEGLIGIBLE)
    if extra <= EQUAL * scale:
        return _Claim(
            cause=Cause.TIE, cost=0.0, exact=exact,
            words="a clearing with it would cost the same; the tie went to the lower price, then"
            " to the earlier id",
        )  # fmt: skip
    return _Claim(
        cause=Cause.COST, cost=extra, exact=exact,
        words=f"the need is covered at less cost without it: taking it would raise the cost by"
        f" {'' if exact else 'at least '}{extra:.6g}",
    )  # fmt: skip


def _bounded(settled: Settled, row: int) -> _Claim:
    """What the relaxation proves, else how much is known about the clearing as a whole."""
    best = settled.optimum
    if settled.unmet_proven and best.reduced_cost is not None and settled.table.least[row].any():
        extra = best.relaxed + float(best.reduced_cost[row]) - best.value
        if extra > EQUAL * max(abs(best.value), _NEGLIGIBLE):
            return _by_cost(settled, extra, exact=False)
    if settled.unmet_proven and best.proven:
        return _Claim(
            cause=Cause.NOT_BEST,
            words="the need is covered at proven least cost without it: no clearing with it leaves"
            " less unmet or costs less",
        )
    gap = (best.value - best.bound) / best.value if best.value > 0 else math.inf
    how = (
        f"gap {gap:.2%} of the cost"
        if settled.unmet_proven and math.isfinite(gap)
        else ("least unmet energy not proven")
    )
    return _Claim(
        cause=Cause.NOT_FOUND,
        words=f"it is not in the best clearing found in the time given ({how})",
    )


def _paradoxical(settled: Settled, row: int, prices: tuple[float | None, ...]) -> bool:
    """Whether a bid asks no more than is paid in every window where it could have served."""
    table = settled.table
    useful = np.flatnonzero((table.most[row] > 0) & (table.need > 0))
    asked = table.bids[row].price_per_mwh
    return bool(len(useful)) and all(
        (price := prices[window]) is not None and asked[window] <= price for window in useful
    )
