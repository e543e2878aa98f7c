"""Mean power of readings over settlement periods.

A series is three arrays of one length: start (Unix seconds), length (seconds) and mean
power (kW, injection positive) of each reading, in any order. Where readings overlap,
the one that starts last stands, and of two with one start the shorter: the finer
reading replaces the coarser one for its span, and nothing is counted twice. Inside,
time is integer microseconds, so that adjacent spans meet exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.units import Kw

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Series = tuple[FloatArray, FloatArray, FloatArray]
"""Starts (Unix seconds), lengths (seconds) and powers (kW); each of shape (n,)."""

_US: Final = 1_000_000
_INTO_NEXT_DAY: Final = timedelta(hours=36)
"""From a local midnight this lands in the next local day, whether it has 23 or 25 hours."""


class Measured(msgspec.Struct, frozen=True):
    """Power of one or more series over one period."""

    mean_kw: Kw
    """Mean over what is covered; several series are summed. 0 where nothing is covered."""
    coverage: float
    """Share of the period (0..1) that is covered; of several series the least covered one."""
    gaps: int
    """Spans of the period without readings, over all series."""


class PowerHistory(msgspec.Struct, frozen=True):
    """Mean power of a portfolio on the settlement grid."""

    start_s: IntArray
    """Start of each period, Unix seconds, ascending, shape (n,)."""
    kw: FloatArray
    """Mean power, injection positive, shape (n,); 0 where nothing is covered."""
    coverage: FloatArray
    """Coverage (0..1) of the least covered series, shape (n,)."""

    def at(self, starts: Sequence[datetime]) -> tuple[FloatArray, FloatArray]:
        """Power and coverage of some periods; a period outside the history is not covered."""
        wanted = np.array([round(start.timestamp()) for start in starts], dtype=np.int64)
        if not len(self.start_s):
            return np.zeros(len(wanted)), np.zeros(len(wanted))
        index = np.minimum(np.searchsorted(self.start_s, wanted), len(self.start_s) - 1)
        known = self.start_s[index] == wanted
        return np.where(known, self.kw[index], 0.0), np.where(known, self.coverage[index], 0.0)


class _Spans(msgspec.Struct, frozen=True):
    """Disjoint spans in ascending order."""

    begin_us: IntArray
    end_us: IntArray
    power_kw: FloatArray


def measure(series: Sequence[Series], period: Interval) -> Measured:
    """Sum over series of the time-weighted mean power in one period.

    A series without readings leaves the period uncovered: its silence is not zero power.
    """
    parts = [_measure(_disjoint(each), period) for each in series]
    return Measured(
        mean_kw=Kw(sum(part.mean_kw for part in parts)),
        coverage=min((part.coverage for part in parts), default=0.0),
        gaps=sum(part.gaps for part in parts) if parts else 1,
    )


def period_means(
    series: Series, period_start_s: IntArray, period_s: int
) -> tuple[FloatArray, FloatArray]:
    """Time-weighted mean power and coverage of one series in many periods of one length.

    `period_start_s` is Unix seconds of shape (m,); both results are of shape (m,). The
    energy of the covered part, `mean * coverage * period`, is that of the readings.
    """
    spans = _disjoint(series)
    if not len(spans.begin_us) or not len(period_start_s):
        return np.zeros(len(period_start_s)), np.zeros(len(period_start_s))
    origin = spans.begin_us[0]
    edges = np.column_stack([spans.begin_us, spans.end_us]).ravel() - origin
    length = (spans.end_us - spans.begin_us).astype(np.float64)
    begins = period_start_s * _US - origin
    ends = begins + period_s * _US
    covered = _between(edges, length, begins, ends)
    energy = _between(edges, length * spans.power_kw, begins, ends)
    mean = np.divide(energy, covered, out=np.zeros_like(energy), where=covered > 0)
    return mean, covered / (period_s * _US)


def history_of(series: Sequence[Series], grid: SettlementGrid, span: Interval) -> PowerHistory:
    """Portfolio power on every settlement period that meets `span`: the sum of the series."""
    starts = _period_starts(grid, span)
    length = round(grid.length.total_seconds())
    total = np.zeros(len(starts))
    coverage = np.ones(len(starts)) if series else np.zeros(len(starts))
    for each in series:
        mean, covered = period_means(each, starts, length)
        total += mean
        coverage = np.minimum(coverage, covered)
    return PowerHistory(starts, total, coverage)


def _period_starts(grid: SettlementGrid, span: Interval) -> IntArray:
    """Starts of the periods that meet a span, made day by day from local midnight."""
    step = round(grid.length.total_seconds())
    days: list[IntArray] = []
    midnight = grid.local_midnight(span.start)
    while midnight < span.end:
        following = grid.local_midnight(midnight + _INTO_NEXT_DAY)
        begin, end = round(midnight.timestamp()), round(following.timestamp())
        days.append(np.arange(begin, end, step, dtype=np.int64))
        midnight = following
    starts = np.concatenate(days)
    meets = (starts + step > span.start.timestamp()) & (starts < span.end.timestamp())
    return starts[meets]


def _between(edges: IntArray, amounts: FloatArray, begins: IntArray, ends: IntArray) -> FloatArray:
    """Part of what is spread evenly over disjoint spans that falls between instants.

    `edges` alternates begin and end of each span, shape (2n,); `amounts` is of shape (n,).
    """
    upto = np.cumsum(amounts)
    before = np.concatenate([[0.0], upto[:-1]])
    cumulative = np.column_stack([before, upto]).ravel()
    x = edges.astype(np.float64)
    result: FloatArray = np.interp(ends.astype(np.float64), x, cumulative) - np.interp(
        begins.astype(np.float64), x, cumulative
    )
    return result


def _measure(spans: _Spans, period: Interval) -> Measured:
    first, last = _us(period.start), _us(period.end)
    begin = np.maximum(spans.begin_us, first)
    end = np.minimum(spans.end_us, last)
    inside = end > begin
    begin, end, power = begin[inside], end[inside], spans.power_kw[inside]
    weight = (end - begin).astype(np.float64)
    covered = float(weight.sum())
    edges = np.concatenate([[first], np.column_stack([begin, end]).ravel(), [last]])
    return Measured(
        mean_kw=Kw(float(power @ weight) / covered if covered else 0.0),
        coverage=covered / (last - first),
        gaps=int((edges[1::2] > edges[0::2]).sum()),
    )


def _disjoint(series: Series) -> _Spans:
    start, seconds, power = (np.asarray(part, dtype=np.float64) for part in series)
    valid = np.isfinite(start) & np.isfinite(power) & np.isfinite(seconds) & (seconds > 0)
    begin = np.rint(start[valid] * _US).astype(np.int64)
    end = begin + np.rint(seconds[valid] * _US).astype(np.int64)
    order = np.lexsort((-end, begin))
    begin, end, power = begin[order], end[order], power[valid][order]
    if (end[:-1] <= begin[1:]).all():
        return _Spans(begin, end, power)
    return _painted(begin, end, power)


def _painted(begin: IntArray, end: IntArray, power: FloatArray) -> _Spans:
    """Resolve overlaps: each reading, in order, paints over what it meets."""
    edges = np.unique(np.concatenate([begin, end]))
    owner = np.full(len(edges) - 1, -1, dtype=np.int64)
    first, last = np.searchsorted(edges, begin), np.searchsorted(edges, end)
    for number, (low, high) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        owner[low:high] = number
    held = owner >= 0
    return _Spans(edges[:-1][held], edges[1:][held], power[owner[held]])


def _us(at: datetime) -> int:
    return round(at.timestamp() * _US)
