"""One connected part of an auction: least unmet energy first, then least cost, then ties."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from marketplace_core.procurement.auction import highs
from marketplace_core.procurement.auction.amounts import filled, within_limits, without_idle
from marketplace_core.procurement.auction.model import UNMET_SLACK, Model, model
from marketplace_core.procurement.auction.program import Program
from marketplace_core.procurement.auction.search import Budget, Optimum, Search, minimise
from marketplace_core.procurement.auction.tableau import BoolArray, FloatArray, Tableau
from marketplace_core.procurement.auction.ties import settle_ties


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a clearing may take. Every argument of time is a function: the core has no clock."""

    seconds_left: Callable[[], float]
    """For the cost."""
    unmet_seconds_left: Callable[[], float]
    """For the proof that no clearing leaves less unmet; the cost waits for it."""
    reason_seconds_left: Callable[[], float]
    """For computing reasons exactly; what is not computed is bounded."""
    gap: float = 0.0
    """(cost - bound) / cost that is good enough."""
    report: Callable[[str, float, float], None] = lambda _stage, _value, _bound: None
    """Told the stage (`unmet`, in kWh, or `cost`), the best value and the bound."""


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What was found for one part."""

    table: Tableau
    model: Model
    program: Program
    """Least cost with the unmet energy fixed: what the reasons are proven with."""
    taken: BoolArray
    kw: FloatArray
    unmet_bound_kwh: float
    unmet_proven: bool
    optimum: Optimum
    ties_settled: bool

    @property
    def cost(self) -> float:
        """Cost of what is awarded."""
        return float((self.kw * self.table.unit_cost).sum())

    @property
    def unmet_kwh(self) -> float:
        """Energy that is left unmet."""
        return float(np.maximum(0.0, self.table.need - self.kw.sum(axis=0)) @ self.table.hours)


def settle(table: Tableau, limits: Limits) -> Settled:
    """Clear one part."""
    made = model(table)
    unmet, search = _least_unmet(made, limits)
    needed = made.needed_kwh
    reached = unmet.value * needed
    program = made.cheapest(reached)
    budget = Budget(
        seconds_left=limits.seconds_left, gap=limits.gap,
        report=lambda value, bound: limits.report("cost", value, bound),
    )  # fmt: skip
    best = (Search(program, budget, unmet.x) if search is None else search.within(budget)).run()
    x, settled = settle_ties(table, made, program, best, limits.seconds_left)
    x = unmet.x if x is None else x
    taken = np.zeros(table.size, dtype=bool) if x is None else made.taken(x) | table.free
    kw = filled(table, taken)
    if table.sellers and x is not None:
        kw = within_limits(table, made, taken, reached, made.amounts(x, table))
    taken = without_idle(table, taken, kw)
    return Settled(
        table=table, model=made, program=program, taken=taken, kw=np.where(taken[:, None], kw, 0.0),
        unmet_bound_kwh=unmet.bound * needed, unmet_proven=unmet.proven, optimum=best,
        ties_settled=settled,
    )  # fmt: skip


def _least_unmet(made: Model, limits: Limits) -> tuple[Optimum, Search | None]:
    """Least unmet energy, in parts of the need, with a clearing that leaves as little.

    What the relaxation leaves unmet is a bound; a clearing that leaves no more is proven best.
    One is looked for first as a start of the cheapest clearing: where supply is ample, it is
    found at once, and the search that found it goes on to the cheapest.
    """
    relaxed = highs.relax(made.unmet, limits.unmet_seconds_left())
    budget = Budget(
        seconds_left=limits.unmet_seconds_left,
        report=lambda value, bound: limits.report(
            "unmet", value * made.needed_kwh, bound * made.needed_kwh
        ),
    )
    bound = max(0.0, relaxed.bound)
    half = limits.seconds_left() / 2
    quiet = Budget(
        seconds_left=lambda: min(limits.unmet_seconds_left(), limits.seconds_left() - half)
    )
    probe = Search(made.cheapest(bound * made.needed_kwh), quiet)
    x = probe.first()
    if x is not None:
        least = Optimum(
            x=x, value=bound, bound=bound, reduced_cost=None, relaxed=bound, proven=True
        )
        return least, probe
    found = minimise(made.unmet, budget, _nobody(made))
    if found.value <= UNMET_SLACK:
        found = msgspec.structs.replace(found, value=0.0, bound=0.0, proven=True)
    return found, None


def _nobody(made: Model) -> FloatArray:
    """The clearing that takes nobody: everything is unmet."""
    x = made.unmet.lower.copy()
    first = made.unmet.columns - len(made.open_windows)
    x[first:] = made.unmet.upper[first:]
    return x
