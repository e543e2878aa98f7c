"""Time-weighted means: nothing counted twice, nothing invented where readings lack."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from marketplace_core.intervals import Interval, SettlementGrid, instant
from marketplace_core.verification.windows import (
    Measured,
    PowerHistory,
    Series,
    history_of,
    measure,
    period_means,
)

START = instant("2017-07-21T00:00:00Z")
T0 = START.timestamp()
HALF_HOUR = Interval(START, START + timedelta(minutes=30))


def series(*readings: tuple[float, float, float]) -> Series:
    """Readings as (seconds after START, length in seconds, kW)."""
    table = np.array(readings, dtype=np.float64).reshape(-1, 3)
    return T0 + table[:, 0], table[:, 1], table[:, 2]


def test_the_mean_is_weighted_by_time() -> None:
    result = measure([series((0, 600, -3.0), (600, 1200, -6.0))], HALF_HOUR)
    assert result == Measured(-5.0, 1.0, 0)


def test_readings_are_cut_at_the_edges_of_the_period() -> None:
    result = measure([series((-600, 1200, 2.0), (600, 3000, 8.0))], HALF_HOUR)
    assert result == Measured(6.0, 1.0, 0)


def test_a_reading_outside_the_period_counts_for_nothing() -> None:
    result = measure([series((-600, 600, 9.0), (0, 1800, 1.0), (1800, 60, 9.0))], HALF_HOUR)
    assert result == Measured(1.0, 1.0, 0)


def test_the_order_of_readings_does_not_matter() -> None:
    result = measure([series((600, 1200, -6.0), (0, 600, -3.0))], HALF_HOUR)
    assert result == Measured(-5.0, 1.0, 0)


def test_a_gap_lowers_the_coverage_and_not_the_mean() -> None:
    result = measure([series((0, 600, 4.0), (1200, 300, 4.0))], HALF_HOUR)
    assert result == Measured(4.0, 0.5, 2)


def test_a_leading_gap_is_counted() -> None:
    assert measure([series((900, 900, 4.0))], HALF_HOUR) == Measured(4.0, 0.5, 1)


def test_no_reading_at_all_is_one_gap() -> None:
    assert measure([series()], HALF_HOUR) == Measured(0.0, 0.0, 1)
    assert measure([], HALF_HOUR) == Measured(0.0, 0.0, 1)


def test_a_duplicate_is_not_counted_twice() -> None:
    once, twice = series((0, 1800, 5.0)), series((0, 1800, 5.0), (0, 1800, 5.0))
    assert measure([twice], HALF_HOUR) == measure([once], HALF_HOUR) == Measured(5.0, 1.0, 0)


def test_of_overlapping_readings_the_one_that_starts_last_stands() -> None:
    assert measure([series((0, 1200, 3.0), (600, 1200, 9.0))], HALF_HOUR) == Measured(7.0, 1.0, 0)


def test_a_fine_reading_replaces_its_part_of_a_coarse_one() -> None:
    # 5 minutes at 12 kW inside half an hour at 6 kW.
    assert measure([series((0, 1800, 6.0), (600, 300, 12.0))], HALF_HOUR) == Measured(7.0, 1.0, 0)
    assert measure([series((0, 300, 12.0), (0, 1800, 6.0))], HALF_HOUR) == Measured(7.0, 1.0, 0)


def test_series_are_summed_and_the_least_covered_one_decides() -> None:
    result = measure([series((0, 1800, -2.0)), series((0, 900, -4.0))], HALF_HOUR)
    assert result == Measured(-6.0, 0.5, 1)


def test_a_silent_series_leaves_the_period_uncovered() -> None:
    # Were its silence zero power, a seller could unplug a meter and be paid for it.
    assert measure([series((0, 1800, -2.0)), series()], HALF_HOUR).coverage == 0.0


def test_readings_that_are_no_numbers_are_no_readings() -> None:
    bad = series((0, 900, float("nan")), (900, 0, 5.0), (900, -5, 5.0), (900, 900, 2.0))
    assert measure([bad], HALF_HOUR) == Measured(2.0, 0.5, 1)


def test_adjacent_spans_of_odd_seconds_leave_no_gap() -> None:
    pieces = [(index * 1800 / 7, 1800 / 7, 1.0) for index in range(7)]
    result = measure([series(*pieces)], HALF_HOUR)
    assert result.coverage == pytest.approx(1.0, abs=1e-8)
    assert result.mean_kw == pytest.approx(1.0)


def test_hourly_readings_spread_over_shorter_periods() -> None:
    starts = np.arange(int(T0), int(T0) + 7200, 900, dtype=np.int64)
    mean, coverage = period_means(series((0, 3600, 4.0), (3600, 3600, -8.0)), starts, 900)
    assert mean.tolist() == pytest.approx([4.0] * 4 + [-8.0] * 4)
    assert coverage.tolist() == [1.0] * 8


def test_minutes_are_averaged_over_longer_periods_and_the_missing_is_not_covered() -> None:
    starts = np.array([int(T0) - 1800, int(T0), int(T0) + 1800], dtype=np.int64)
    minutes = series(*[(60.0 * number, 60.0, float(number)) for number in range(40)])
    mean, coverage = period_means(minutes, starts, 1800)
    assert mean.tolist() == pytest.approx([0.0, 14.5, 34.5])
    assert coverage.tolist() == pytest.approx([0.0, 1.0, 1 / 3])


def test_nothing_gives_nothing() -> None:
    starts = np.array([int(T0)], dtype=np.int64)
    assert [part.tolist() for part in period_means(series(), starts, 1800)] == [[0.0], [0.0]]
    none = period_means(series((0, 60, 1.0)), starts[:0], 1800)
    assert [part.tolist() for part in none] == [[], []]


def test_a_portfolio_is_the_sum_and_covered_as_its_least_member() -> None:
    grid = SettlementGrid(30, "America/Los_Angeles")
    span = Interval(START, START + timedelta(hours=1))
    history = history_of([series((0, 3600, -2.0)), series((0, 2700, -4.0))], grid, span)
    assert history.start_s.tolist() == [int(T0), int(T0) + 1800]
    assert history.kw.tolist() == pytest.approx([-6.0, -6.0])
    assert history.coverage.tolist() == [1.0, 0.5]
    assert history_of([], grid, span).coverage.tolist() == [0.0, 0.0]


def test_history_is_looked_up_by_the_start_of_the_period() -> None:
    grid = SettlementGrid(30, "America/Los_Angeles")
    span = Interval(START, START + timedelta(hours=1))
    history = history_of([series((0, 1800, 3.0), (1800, 1800, 5.0))], grid, span)
    asked = [START + timedelta(minutes=minutes) for minutes in (30, 0, 15, -30, 60)]
    kw, coverage = history.at(asked)
    assert kw.tolist() == [5.0, 3.0, 0.0, 0.0, 0.0]
    assert coverage.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    empty = PowerHistory(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    assert [part.tolist() for part in empty.at(asked[:2])] == [[0.0, 0.0], [0.0, 0.0]]
