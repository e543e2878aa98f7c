"""A mixed-integer program in columns, and parts of it with some columns held."""

from __future__ import annotations

import msgspec
import numpy as np

from marketplace_core.procurement.auction.tableau import BoolArray, FloatArray, IntArray


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """Minimise cost x, row_lower <= A x <= row_upper, lower <= x <= upper."""

    cost: FloatArray
    lower: FloatArray
    upper: FloatArray
    integer: BoolArray
    row_lower: FloatArray
    row_upper: FloatArray
    start: IntArray
    """Where each column begins in `row` and `value`, and at last where the last one ends."""
    row: IntArray
    value: FloatArray

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return len(self.cost)

    def activity(self, x: FloatArray) -> FloatArray:
        """A x."""
        scaled = self.value * np.repeat(x, np.diff(self.start))
        sums = np.bincount(self.row, weights=scaled, minlength=len(self.row_lower))
        return np.asarray(sums, dtype=np.float64)

    def with_bounds(self, lower: FloatArray, upper: FloatArray) -> Program:
        """The same with other bounds of the columns."""
        return msgspec.structs.replace(self, lower=lower, upper=upper)


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A program over some of the columns of another; the rest is held where it is."""

    program: Program
    kept: IntArray
    """Numbers of the columns that are left."""
    at: FloatArray
    """Values of all columns; those that are left are to be replaced."""
    offset: float
    """Cost of what is held."""

    def whole(self, part: FloatArray) -> FloatArray:
        """Values of all columns, given those of the columns that are left."""
        x = self.at.copy()
        x[self.kept] = part
        return x


def hold(program: Program, held: BoolArray, x: FloatArray) -> Held:
    """Hold some columns of `program` at `x`; rows that say nothing any more are dropped."""
    kept = np.flatnonzero(~held)
    fixed = np.where(held, x, 0.0)
    done = program.activity(fixed)
    counts = np.diff(program.start)
    entries = np.flatnonzero(np.repeat(~held, counts))
    used = np.unique(program.row[entries])
    place = np.full(len(program.row_lower), -1, dtype=np.int64)
    place[used] = np.arange(len(used))
    return Held(
        program=Program(
            cost=program.cost[kept],
            lower=program.lower[kept],
            upper=program.upper[kept],
            integer=program.integer[kept],
            row_lower=program.row_lower[used] - done[used],
            row_upper=program.row_upper[used] - done[used],
            start=np.concatenate(([0], np.cumsum(counts[kept]))),
            row=place[program.row[entries]],
            value=program.value[entries],
        ),
        kept=kept,
        at=x,
        offset=float(program.cost @ fixed),
    )


class Rows:
    """Rows of a program as they are written down, entry by entry."""

    def __init__(self, columns: int) -> None:
        """`columns`: how many there are."""
        self._columns = columns
        self._lower: list[float] = []
        self._upper: list[float] = []
        self._entries: list[tuple[IntArray, IntArray, FloatArray]] = []

    def add(self, columns: IntArray, values: FloatArray, lower: float, upper: float) -> None:
        """Add one row."""
        rows = np.full(len(columns), len(self._lower), dtype=np.int64)
        self._lower.append(lower)
        self._upper.append(upper)
        self._entries.append((np.asarray(columns, dtype=np.int64), rows, values))

    def program(
        self, cost: FloatArray, lower: FloatArray, upper: FloatArray, integer: BoolArray
    ) -> Program:
        """The program of these rows."""
        none = np.zeros(0, dtype=np.int64)
        parts = self._entries or [(none, none, np.zeros(0))]
        column, row, value = (np.concatenate(part) for part in zip(*parts, strict=True))
        filled = value != 0
        column, row, value = column[filled], row[filled], value[filled]
        order = np.lexsort((row, column))
        counts = np.bincount(column, minlength=self._columns)
        return Program(
            cost=cost, lower=lower, upper=upper, integer=integer,
            row_lower=np.array(self._lower), row_upper=np.array(self._upper),
            start=np.concatenate(([0], np.cumsum(counts))), row=row[order], value=value[order],
        )  # fmt: skip
