"""Energy is conserved to the watt-hour across resampling, overlaps and clock changes."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace_core.intervals import Interval, SettlementGrid, instant
from marketplace_core.verification.windows import Series, history_of, measure

WATT_HOUR = 1e-3
GRIDS = st.sampled_from([5, 15, 30, 60])
# Each span holds one clock change: spring and autumn in California and in Britain.
CHANGES = {
    "America/Los_Angeles": ("2017-03-12T10:00:00Z", "2016-11-06T09:00:00Z"),
    "Europe/London": ("2017-03-26T01:00:00Z", "2017-10-29T01:00:00Z"),
}
SPANS = [(zone, instant(text)) for zone, texts in CHANGES.items() for text in texts]
POWERS = st.lists(st.floats(-1e3, 1e3), min_size=97, max_size=97)


def local_days(zone: str, around: datetime) -> Interval:
    """Two local days with the clock change in one of them."""
    grid = SettlementGrid(60, zone)
    first = grid.local_midnight(around)
    return Interval(first, grid.local_midnight(first + timedelta(hours=60)))


def hourly(powers: list[float], begin: datetime) -> Series:
    count = len(powers)
    starts = begin.timestamp() + 3600.0 * np.arange(count)
    return starts, np.full(count, 3600.0), np.array(powers)


@pytest.mark.parametrize(("zone", "change"), SPANS)
@settings(deadline=None, max_examples=25)
@given(minutes=GRIDS, powers=POWERS)
def test_hourly_readings_keep_their_energy_on_every_grid_across_clock_changes(
    zone: str, change: datetime, minutes: int, powers: list[float]
) -> None:
    grid = SettlementGrid(minutes, zone)
    span = local_days(zone, change)
    hours = round(span.hours)
    assert hours in {47, 49}
    history = history_of([hourly(powers[:hours], span.start)], grid, span)
    assert len(history.start_s) == hours * 60 // minutes
    assert history.coverage.min() == pytest.approx(1.0)
    energy = float(history.kw.sum()) * minutes / 60
    assert abs(energy - float(np.sum(powers[:hours]))) < WATT_HOUR


@pytest.mark.parametrize(("zone", "change"), SPANS)
@pytest.mark.parametrize("minutes", [5, 15, 30, 60])
def test_history_stands_on_the_settlement_grid(zone: str, change: datetime, minutes: int) -> None:
    grid = SettlementGrid(minutes, zone)
    span = Interval(change - timedelta(hours=13, minutes=7), change + timedelta(hours=29))
    history = history_of([hourly([1.0], change)], grid, span)
    expected = [round(period.start.timestamp()) for period in grid.periods(span)]
    assert history.start_s.tolist() == expected


@pytest.mark.parametrize(("zone", "change"), SPANS)
def test_a_local_day_has_its_true_length(zone: str, change: datetime) -> None:
    grid = SettlementGrid(30, zone)
    local = change.astimezone(ZoneInfo(zone))
    midnight = grid.local_midnight(local)
    after = grid.local_midnight(midnight + timedelta(hours=36))
    periods = list(grid.periods(Interval(midnight, after)))
    assert len(periods) == round((after - midnight) / timedelta(minutes=30))
    assert len(periods) in {46, 50}


@st.composite
def readings(draw: st.DrawFn) -> list[tuple[int, int, float]]:
    """Readings in whole seconds after the start; they may overlap, repeat or leave gaps."""
    one = st.tuples(st.integers(-3600, 90_000), st.integers(1, 7200), st.floats(-100, 100))
    return draw(st.lists(one, max_size=25))


def by_the_second(raw: list[tuple[int, int, float]], seconds: int) -> np.ndarray:
    """The rule written out: for each second the reading that starts last, then the shorter."""
    power = np.full(seconds, np.nan)
    for start, length, kw in sorted(raw, key=lambda each: (each[0], -each[1])):
        power[max(start, 0) : max(start + length, 0)] = kw
    return power


@settings(deadline=None, max_examples=150)
@given(raw=readings(), minutes=GRIDS)
def test_overlapping_readings_are_neither_lost_nor_counted_twice(
    raw: list[tuple[int, int, float]], minutes: int
) -> None:
    span = local_days("America/Los_Angeles", instant("2017-03-12T10:00:00Z"))
    seconds = round(span.hours * 3600)
    table = np.array(raw, dtype=np.float64).reshape(-1, 3)
    series = (span.start.timestamp() + table[:, 0], table[:, 1], table[:, 2])
    history = history_of([series], SettlementGrid(minutes, "America/Los_Angeles"), span)
    truth = by_the_second(raw, seconds).reshape(-1, minutes * 60)
    covered = np.isfinite(truth).mean(axis=1)
    energy = np.nansum(truth, axis=1) / 3600
    assert np.allclose(history.coverage, covered, atol=1e-9)
    hours = minutes / 60
    assert np.allclose(history.kw * history.coverage * hours, energy, atol=WATT_HOUR)


@settings(deadline=None, max_examples=100)
@given(raw=readings(), first=st.integers(0, 80_000), length=st.integers(60, 7200))
def test_one_window_and_the_whole_history_agree(
    raw: list[tuple[int, int, float]], first: int, length: int
) -> None:
    start = instant("2017-07-20T07:00:00Z")
    table = np.array(raw, dtype=np.float64).reshape(-1, 3)
    series = (start.timestamp() + table[:, 0], table[:, 1], table[:, 2])
    begin = start + timedelta(seconds=first)
    measured = measure([series], Interval(begin, begin + timedelta(seconds=length)))
    truth = by_the_second(raw, 100_000)[first : first + length]
    assert measured.coverage == pytest.approx(np.isfinite(truth).mean(), abs=1e-9)
    energy = measured.mean_kw * measured.coverage * length / 3600
    assert energy == pytest.approx(float(np.nansum(truth)) / 3600, abs=WATT_HOUR)
    missing = np.isnan(truth)
    starts_of_gaps = missing & ~np.concatenate([[False], missing[:-1]])
    assert measured.gaps == int(starts_of_gaps.sum())
