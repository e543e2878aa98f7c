"""Between clearings that are equally good: the lower price, then the earlier id.

First as little as possible is taken for nothing (at price 0), so that no bid is taken only
because it costs nothing. Then the bids are asked in the order of the table (mean price, then
id): one that can be part of a best clearing, with those before it as decided, is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from marketplace_core.procurement.auction import highs
from marketplace_core.procurement.auction.model import Model, with_row
from marketplace_core.procurement.auction.program import Program
from marketplace_core.procurement.auction.search import Optimum
from marketplace_core.procurement.auction.tableau import BoolArray, FloatArray, Tableau

EQUAL: Final = 2e-8
"""Relative difference of cost below which two clearings cost the same; see `UNMET_SLACK`."""
SOME_PART: Final = 1e-3
"""Part of what it offers that a bid without a minimum has to be awarded to count as taken."""
_FEW: Final = 12
"""Up to so many open bids are asked one by one without asking first whether there is any tie."""


def settle_ties(
    table: Tableau,
    model: Model,
    program: Program,
    best: Optimum,
    seconds_left: Callable[[], float],
) -> tuple[FloatArray | None, bool]:
    """The best clearing that price and id choose, and whether that is proven."""
    if best.x is None or not best.proven:
        return best.x, False
    return _Ties(table, model, program, best, seconds_left).run(best.x)


def some_part(table: Tableau, model: Model, bid: int) -> tuple[FloatArray, float]:
    """Coefficients and lower bound of the row that makes a bid without a minimum count."""
    row = np.zeros(model.cost.columns)
    mine = np.flatnonzero(model.more_bid == bid)
    row[table.size + mine] = table.hours[model.more_window[mine]]
    return row, SOME_PART * float(table.most[bid] @ table.hours)


class _Ties:
    def __init__(
        self,
        table: Tableau,
        model: Model,
        program: Program,
        best: Optimum,
        seconds_left: Callable[[], float],
    ) -> None:
        self._table, self._model, self._seconds = table, model, seconds_left
        scale = max(abs(best.value), EQUAL)
        cheap = with_row(program, program.cost / scale, best.value / scale + EQUAL)
        self._program = msgspec.structs.replace(cheap, cost=np.zeros(program.columns))
        self._lower, self._upper = program.lower.copy(), program.upper.copy()
        self._decided = self._by_reduced_cost(best, EQUAL * scale)

    def run(self, x: FloatArray) -> tuple[FloatArray, bool]:
        x = self._least_for_nothing(x)
        if len(self._open()) > _FEW and self._alone(x):
            return x, True
        for bid in self._open():
            if self._seconds() <= 0:
                return x, False
            found, ended = self._with(bid, x)
            if found is None and not ended:
                return x, False
            self._lower[bid] = self._upper[bid] = 0.0 if found is None else 1.0
            x = x if found is None else found
        return x, True

    def _by_reduced_cost(self, best: Optimum, slack: float) -> BoolArray:
        if best.reduced_cost is None:
            return np.zeros(self._table.size, dtype=bool)
        room = best.value - best.relaxed + slack
        return np.asarray(np.abs(best.reduced_cost[: self._table.size]) > room, dtype=bool)

    def _open(self) -> list[int]:
        undecided = (self._lower < self._upper)[: self._table.size] & ~self._decided
        return [int(bid) for bid in np.flatnonzero(undecided)]

    def _solve(self, program: Program) -> highs.Solved:
        return highs.solve(program.with_bounds(self._lower, self._upper), self._seconds())

    def _least_for_nothing(self, x: FloatArray) -> FloatArray:
        """Of the best clearings one that takes the least energy at price 0."""
        gift = np.where(self._table.unit_cost == 0, self._table.least, 0.0) @ self._table.hours
        if not gift.any():
            return x
        scaled = np.zeros(self._program.columns)
        scaled[: self._table.size] = gift / gift.max()
        found = self._solve(msgspec.structs.replace(self._program, cost=scaled))
        x = x if found.x is None else found.x
        self._program = with_row(self._program, scaled, float(scaled @ np.round(x)) + EQUAL)
        return x

    def _alone(self, x: FloatArray) -> bool:
        """Whether no other bids would do as well."""
        taken = np.round(x[: self._table.size])
        differ = np.zeros(self._program.columns)
        differ[: self._table.size] = np.where(taken > 0, 1.0, -1.0)
        other = self._solve(with_row(self._program, differ, float(taken.sum()) - 1.0))
        return other.x is None and other.ended

    def _with(self, bid: int, x: FloatArray) -> tuple[FloatArray | None, bool]:
        """An equally good clearing with this bid, and whether it is certain when there is none."""
        table, program = self._table, self._program
        idle = not table.least[bid].any()
        if idle:
            row, least = some_part(table, self._model, bid)
            if x[bid] > 0 and row @ x >= least:
                return x, True
            if not row.any():
                return (x, True) if x[bid] > 0 else (None, True)
            program = with_row(program, -row / least, -1.0)
        elif x[bid] > 0.5:  # noqa: PLR2004 - 0 or 1
            return x, True
        held = self._lower[bid]
        self._lower[bid] = 1.0
        found = self._solve(program)
        self._lower[bid] = held
        if found.x is not None and idle:
            self._program = program
        return found.x, found.ended or not math.isfinite(found.bound)
