"""The clearing of a tableau as a mixed-integer program.

Columns: `taken` (0 or 1) for each bid; `more`, the kW above the least, for each bid and window
where it can be cut; `unmet` for each window with a need. Rows are scaled so that 1 is the
need of the window, the limit of the seller or the whole of the bid: tolerances are relative.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np

from marketplace_core.procurement.auction.program import Program, Rows
from marketplace_core.procurement.auction.tableau import BoolArray, FloatArray, IntArray, Tableau

UNMET_SLACK: Final = 2e-8
"""Of the needed energy: by so little may the unmet energy exceed its least, for rounding.

Well above the solver's tolerance: where both were the same, HiGHS 1.16.0 was seen to call
a program infeasible that is not.
"""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Both programs of a tableau, and which column is what."""

    unmet: Program
    """Minimises the unmet energy, in parts of what is needed."""
    cost: Program
    """Minimises cost, with unmet energy still free: see `cheapest`."""
    more_bid: IntArray
    """Bid of each column of `more`."""
    more_window: IntArray
    open_windows: IntArray
    """Windows with a need, in the order of their columns."""
    bids: int
    needed_kwh: float

    def taken(self, x: FloatArray) -> BoolArray:
        """Which bids a solution takes."""
        return np.asarray(x[: self.bids] > 0.5, dtype=bool)  # noqa: PLR2004 - 0 or 1

    def amounts(self, x: FloatArray, table: Tableau) -> FloatArray:
        """Awarded kW, bids x windows."""
        kw = np.where(self.taken(x)[:, None], table.least, 0.0)
        more = x[self.bids : self.bids + len(self.more_bid)]
        kw[self.more_bid, self.more_window] += np.maximum(more, 0.0)
        return np.asarray(np.clip(kw, 0.0, np.where(self.taken(x)[:, None], table.most, 0.0)))

    def columns(self, taken: BoolArray, kw: FloatArray, table: Tableau) -> FloatArray:
        """The solution in which these bids are awarded this."""
        more = kw[self.more_bid, self.more_window] - table.least[self.more_bid, self.more_window]
        more = np.where(taken[self.more_bid], np.maximum(more, 0.0), 0.0)
        short = np.maximum(0.0, table.need - kw.sum(axis=0))[self.open_windows]
        return np.concatenate((taken.astype(float), more, short))

    def cheapest(self, unmet_kwh: float, slack: float = UNMET_SLACK) -> Program:
        """The program of least cost among those that leave no more unmet than this."""
        program, first = self.cost, self.cost.columns - len(self.open_windows)
        limit = unmet_kwh / self.needed_kwh if self.needed_kwh > 0 else 0.0
        if limit <= UNMET_SLACK:
            upper = program.upper.copy()
            upper[first:] = 0.0
            return program.with_bounds(program.lower, upper)
        return msgspec.structs.replace(
            with_row(program, self.unmet.cost, limit + slack),
            upper=np.where(self.unmet.cost > 0, self._unmet_upper(unmet_kwh), program.upper),
        )

    def _unmet_upper(self, unmet_kwh: float) -> FloatArray:
        """No window has more unmet than there is altogether."""
        hours = np.where(self.unmet.cost > 0, self.unmet.cost * self.needed_kwh, 1.0)
        most = (unmet_kwh + UNMET_SLACK * self.needed_kwh) / hours
        return np.minimum(self.cost.upper, most)


def with_row(program: Program, coefficients: FloatArray, upper: float) -> Program:
    """`program` with one more row: coefficients x <= upper."""
    number = len(program.row_lower)
    extra = coefficients != 0
    counts = np.diff(program.start)
    ends = program.start[1:][extra]
    return msgspec.structs.replace(
        program,
        row_lower=np.append(program.row_lower, -math.inf),
        row_upper=np.append(program.row_upper, upper),
        start=np.concatenate(([0], np.cumsum(counts + extra))),
        row=np.insert(program.row, ends, number),
        value=np.insert(program.value, ends, coefficients[extra]),
    )


def model(table: Tableau) -> Model:
    """Both programs of a tableau."""
    more_bid, more_window = np.nonzero(table.cuttable())
    open_windows = np.flatnonzero(table.need > 0)
    size, more = table.size, len(more_bid)
    columns = size + more + len(open_windows)
    rows = Rows(columns)
    _cover(rows, table, more_bid, more_window, open_windows)
    _cut(rows, table, more_bid, more_window)
    _exclude_and_link(rows, table)
    _share(rows, table, more_bid, more_window)
    lower = np.concatenate((table.free.astype(float), np.zeros(columns - size)))
    span = (table.most - table.least)[more_bid, more_window]
    upper = np.concatenate((np.ones(size), span, table.need[open_windows]))
    integer = np.arange(columns) < size
    integer[:size] &= ~table.free
    needed = float(table.need @ table.hours)
    unmet = np.zeros(columns)
    unmet[size + more :] = table.hours[open_windows] / needed if needed > 0 else 0.0
    cost = np.zeros(columns)
    cost[:size] = (table.least * table.unit_cost).sum(axis=1)
    cost[size : size + more] = table.unit_cost[more_bid, more_window]
    program = rows.program(cost, lower, upper, integer)
    return Model(
        unmet=msgspec.structs.replace(program, cost=unmet), cost=program, more_bid=more_bid,
        more_window=more_window, open_windows=open_windows, bids=size, needed_kwh=needed,
    )  # fmt: skip


def _cover(
    rows: Rows, table: Tableau, more_bid: IntArray, more_window: IntArray, open_windows: IntArray
) -> None:
    """What is awarded and what is unmet cover the need.

    A bid that covers a need alone counts as that need, not as more: the same solutions, and a
    tighter bound.
    """
    size, more = table.size, len(more_bid)
    useful = np.minimum(table.least, table.need)
    for number, window in enumerate(open_windows):
        takers = np.flatnonzero(useful[:, window])
        cut = np.flatnonzero(more_window == window)
        columns = np.concatenate((takers, size + cut, [size + more + number]))
        values = np.concatenate((useful[takers, window], np.ones(len(cut) + 1)))
        rows.add(columns, values / table.need[window], 1.0, math.inf)


def _cut(rows: Rows, table: Tableau, more_bid: IntArray, more_window: IntArray) -> None:
    """Nothing is awarded to a bid that is not taken."""
    for number, (bid, window) in enumerate(zip(more_bid, more_window, strict=True)):
        if not table.free[bid]:
            span = table.most[bid, window] - table.least[bid, window]
            columns = np.array([bid, table.size + number])
            rows.add(columns, np.array([-1.0, 1.0 / span]), -math.inf, 0.0)


def _exclude_and_link(rows: Rows, table: Tableau) -> None:
    for group in table.groups:
        rows.add(np.array(group), np.ones(len(group)), -math.inf, 1.0)
    for bid, other in table.requires:
        rows.add(np.array([bid, other]), np.array([1.0, -1.0]), -math.inf, 0.0)


def _share(rows: Rows, table: Tableau, more_bid: IntArray, more_window: IntArray) -> None:
    """No seller is awarded more than its limit."""
    limit = table.share_limit_kwh
    scale = limit or max(1.0, float(table.need @ table.hours))
    kwh = table.least @ table.hours
    for _, members in table.sellers:
        mine = np.isin(more_bid, members)
        columns = np.concatenate((members, table.size + np.flatnonzero(mine)))
        values = np.concatenate((kwh[list(members)], table.hours[more_window[mine]]))
        rows.add(columns, values / scale, -math.inf, (limit or 0.0) / scale)
