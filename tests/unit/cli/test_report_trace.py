"""Minute means for the plots: readings off the minute neither vanish nor count twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.demo.minutes import minute_means

START = 1_500_593_400.0


def test_readings_a_hair_off_the_minute_stay_one_per_minute() -> None:
    jitter = (-0.00009, 0.00008, 0.0, -0.00003, 0.00005)
    rows = [(START + 60 * i + off, 60.0, -6.6) for i, off in enumerate(jitter)]
    means = minute_means(rows)
    assert list(means) == [START + 60 * i for i in range(5)]
    assert list(means.values()) == pytest.approx([-6.6] * 5)


def test_two_readings_in_a_minute_are_averaged_by_their_length() -> None:
    means = minute_means([(START, 45.0, 4.0), (START + 45.0, 15.0, 8.0)])
    assert means == {START: pytest.approx(5.0)}


def test_a_long_reading_fills_every_minute_it_covers() -> None:
    assert list(minute_means([(START, 1800.0, 1.0)]).values()) == [1.0] * 30


def test_a_minute_that_is_mostly_unknown_is_left_out() -> None:
    assert minute_means([(START, 60.0, 1.0), (START + 60.0, 30.0, 1.0)]) == {START: 1.0}


@given(
    st.lists(st.tuples(st.floats(1, 400), st.floats(-50, 50)), min_size=1, max_size=40),
    st.floats(0, 59.9),
)
def test_energy_of_whole_minutes_is_kept(spans: list[tuple[float, float]], offset: float) -> None:
    rows, at = [], START + offset
    for seconds, kw in spans:
        rows.append((at, seconds, kw))
        at += seconds
    for minute, mean in minute_means(rows).items():
        inside = [
            (max(0.0, min(start + seconds, minute + 60) - max(start, minute)), kw)
            for start, seconds, kw in rows
        ]
        spent = sum(s for s, _ in inside)
        assert mean * spent == pytest.approx(sum(s * kw for s, kw in inside), abs=1e-6)
