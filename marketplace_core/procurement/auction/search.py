"""Least cost of a program: bound by relaxation, good solutions by neighbourhoods, then proof.

A relaxation of an auction leaves few bids undecided: at most one for each window or limit that
binds. So nearly all bids of a good clearing are decided as the relaxation decides them, and
those that are not have a small reduced cost. The search holds most bids and lets HiGHS solve
the few that are open, again and again: first those nearest to undecided (the core), then
neighbourhoods of the best clearing drawn by reduced cost. What the reduced costs prove
decided is left out for good, and the rest is given to HiGHS for the proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from marketplace_core.procurement.auction import highs
from marketplace_core.procurement.auction.program import Program, hold
from marketplace_core.procurement.auction.tableau import BoolArray, FloatArray

_SMALL: Final = 60
"""So many undecided columns or fewer are left to HiGHS at once."""
_CORE_NODES: Final = 1000
_CORE_GROWTH: Final = 1.4
_PATIENCE: Final = 60
"""Neighbourhoods without an improvement before the proof is tried."""
_ROUND_NODES: Final = 400
_ROUND_SECONDS: Final = 1.0
_ROUND_PART: Final = 0.25
"""A part is given this much of the time left, or so many seconds if that is more."""
_SIZE: Final = (30.0, 160.0)
_FIRST_SIZE: Final = 60.0
_SEARCH_PART: Final = 0.8
"""Part of the time left that goes to neighbourhoods before the proof."""
_WORTH_WHILE: Final = 1e-4
"""Part of what may still be gained that a neighbourhood has to gain."""
_RELATIVE: Final = 1e-9


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How long to search, and how well it has to be known."""

    seconds_left: Callable[[], float]
    gap: float = 0.0
    """(cost - bound) / cost that is good enough."""
    report: Callable[[float, float], None] = lambda _value, _bound: None
    """Told the best cost and the bound as they improve."""

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.seconds_left() <= 0


class Optimum(msgspec.Struct, frozen=True, kw_only=True):
    """The best that was found, and what is known about better ones."""

    x: FloatArray | None
    value: float
    bound: float
    reduced_cost: FloatArray | None
    """Of the relaxation, whose value is `relaxed`; None where there was none."""
    relaxed: float
    proven: bool
    """Whether nothing is better."""


class Search:
    """One search for the least cost of a program."""

    def __init__(self, program: Program, budget: Budget, start: FloatArray | None = None) -> None:
        """`start` is a solution that is known already."""
        self._program = program
        self._budget = budget
        self._best = start
        self._value = math.inf if start is None else float(program.cost @ start)
        self._bound = -math.inf
        self._relaxed: highs.Solved | None = None
        self._size = _FIRST_SIZE
        # Draws neighbourhoods; the same for every search, so that it can be repeated.
        self._draw = np.random.default_rng(20_261_125)

    def run(self) -> Optimum:
        """Search until it is proven, good enough, or the time is up."""
        open_columns = int((self._program.integer & self._undecided()).sum())
        if open_columns > _SMALL:
            self._start()
            if not self._enough():
                self._neighbourhoods()
        if not self._enough():
            self._prove()
        relaxed = self._relaxed
        return Optimum(
            x=self._best, value=self._value, bound=min(self._bound, self._value),
            reduced_cost=None if relaxed is None else relaxed.reduced_cost,
            relaxed=-math.inf if relaxed is None else relaxed.bound,
            proven=self._slack() <= 0,
        )  # fmt: skip

    def first(self) -> FloatArray | None:
        """Any good solution, soon: of a small program the first, of a large one the core's."""
        if int((self._program.integer & self._undecided()).sum()) > _SMALL:
            self._start()
        else:
            none = msgspec.structs.replace(self._program, cost=np.zeros(self._program.columns))
            found = highs.solve(none, self._budget.seconds_left()).x
            if found is not None:
                self._offer(found)
        return self._best

    def within(self, budget: Budget) -> Search:
        """The same search, to go on within another budget."""
        self._budget = budget
        return self

    def _undecided(self) -> BoolArray:
        return self._program.upper > self._program.lower

    def _slack(self) -> float:
        """How much better a solution might be, beyond rounding."""
        if math.isinf(self._value):
            return 0.0 if self._bound == math.inf else math.inf
        return self._value - self._bound - _RELATIVE * max(abs(self._value), _RELATIVE)

    def _enough(self) -> bool:
        slack = self._slack()
        return slack <= 0 or slack <= self._budget.gap * abs(self._value) or self._budget.over

    def _start(self) -> None:
        """Relaxation and core, once."""
        if self._relaxed is not None:
            return
        self._relaxed = highs.relax(self._program, self._budget.seconds_left())
        self._bound = max(self._bound, self._relaxed.bound)
        if not self._enough():
            self._core()

    def _offer(self, x: FloatArray) -> bool:
        """Take a solution if it is the best so far."""
        integer = self._program.integer
        x = np.where(integer, np.round(x), x)
        value = float(self._program.cost @ x)
        if value >= self._value:
            return False
        self._best, self._value = x, value
        self._budget.report(self._value, self._bound)
        return True

    def _core(self) -> None:
        """Solve the bids that the relaxation leaves nearly undecided, the others as it says."""
        relaxed = self._relaxed
        if relaxed is None or relaxed.x is None or relaxed.reduced_cost is None:
            return
        integer = np.flatnonzero(self._program.integer)
        order = integer[np.argsort(np.abs(relaxed.reduced_cost[integer]), kind="stable")]
        base = np.where(self._program.integer, np.round(relaxed.x), relaxed.x)
        size, found = _FIRST_SIZE, None
        while size < len(order) and not self._enough():
            found = self._part(order[: int(size)], base, _CORE_NODES)
            if self._best is not None:
                base = self._best
                if not found.ended:
                    break
            size *= _CORE_GROWTH
        self._size = size

    def _part(self, chosen: np.ndarray, base: FloatArray, nodes: int) -> highs.Solved:
        """Solve with only the chosen whole columns open; keep what is better."""
        held = self._program.integer.copy()
        held[chosen] = False
        part = hold(self._program, held, base)
        cutoff = math.inf
        if math.isfinite(self._value) and math.isfinite(self._bound):
            cutoff = self._value - part.offset - self._slack() * _WORTH_WHILE
        found = highs.solve(part.program, self._budget.seconds_left(), nodes=nodes, cutoff=cutoff)
        if found.x is not None:
            self._offer(part.whole(found.x))
        return found

    def _neighbourhoods(self) -> None:
        """Open some bids of the best solution, those of small reduced cost more often."""
        if self._best is None or self._relaxed is None or self._relaxed.reduced_cost is None:
            return
        until = self._budget.seconds_left() * (1 - _SEARCH_PART)
        size, idle = self._size / _CORE_GROWTH, 0
        while idle < _PATIENCE and self._budget.seconds_left() > until and not self._enough():
            chosen = self._drawn(int(size))
            if len(chosen) < int(size):
                break  # whatever could change is open: that is the proof's
            before = self._value
            found = self._part(chosen, self._best, _ROUND_NODES)
            idle = idle + 1 if self._value >= before else 0
            size *= 1.05 if found.ended else 0.9
            size = min(max(size, _SIZE[0]), _SIZE[1])

    def _drawn(self, size: int) -> np.ndarray:
        """Columns that could still change, the nearer to undecided the likelier."""
        could = np.flatnonzero(self._program.integer & ~self._decided())
        relaxed = self._relaxed
        if relaxed is None or relaxed.reduced_cost is None:
            return could[:size]
        spread = float(self._draw.choice([0.02, 0.05, 0.1])) * max(self._slack(), 1e-12)
        weight = 1.0 / (np.abs(relaxed.reduced_cost[could]) + spread)
        key = -np.log(self._draw.random(len(could))) / weight
        return could[np.argsort(key, kind="stable")[:size]]

    def _decided(self) -> BoolArray:
        """Columns whose change alone would cost more than is still to be gained."""
        relaxed = self._relaxed
        if relaxed is None or relaxed.reduced_cost is None or math.isinf(self._value):
            return ~self._undecided()
        room = self._value - relaxed.bound + _RELATIVE * abs(self._value)
        return ~self._undecided() | (np.abs(relaxed.reduced_cost) > room)

    def _prove(self) -> None:
        """Give what is not decided to HiGHS."""
        program, best = self._program, self._best
        if best is None:
            found = highs.solve(program, self._budget.seconds_left(), gap=self._budget.gap)
            if found.x is not None:
                self._offer(found.x)
            self._bound = max(self._bound, found.bound)
            return
        held = program.integer & self._decided()
        part = hold(program, held, best)
        cutoff = self._value - part.offset - _RELATIVE * max(abs(self._value), _RELATIVE) / 2
        found = highs.solve(
            part.program, self._budget.seconds_left(), cutoff=cutoff, gap=self._gap(part.offset)
        )
        before = self._value
        if found.x is not None:
            self._offer(part.whole(found.x))
        # What was held out costs at least as much as the best did when it was held out.
        self._bound = max(self._bound, min(found.bound + part.offset, before))

    def _gap(self, offset: float) -> float:
        """The gap that is good enough, as HiGHS sees it: without what is held."""
        inner = abs(self._value - offset)
        return self._budget.gap * abs(self._value) / inner if inner > 0 else 0.0


def minimise(program: Program, budget: Budget, start: FloatArray | None = None) -> Optimum:
    """Least cost of a program."""
    return Search(program, budget, start).run()
