"""The map between market and wall time, and the speeds that it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_core.errors import ConfigError
from marketplace_core.ports import TimeMap
from marketplace_core.simtime import AffineTime, check_speed, from_unix, identity

MARKET = datetime(2017, 7, 20, 23, 30, tzinfo=UTC)
WALL = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


def test_a_wall_minute_is_three_market_hours_at_180() -> None:
    time_map: TimeMap = AffineTime(MARKET, WALL, 180.0)
    assert time_map.to_market(WALL + timedelta(minutes=1)) == MARKET + timedelta(hours=3)
    assert time_map.to_wall(MARKET - timedelta(hours=3)) == WALL - timedelta(minutes=1)


@given(st.floats(0.1, 5000), st.timedeltas(timedelta(0), timedelta(days=2)))
def test_there_and_back_is_within_the_clock_resolution(speed: float, span: timedelta) -> None:
    time_map = AffineTime(MARKET, WALL, speed)
    back = time_map.to_market(time_map.to_wall(MARKET + span))
    assert abs(back - MARKET - span) <= timedelta(microseconds=2 + speed)


def test_production_is_the_identity() -> None:
    assert identity().to_market(WALL) == WALL
    assert identity().to_wall(WALL) == WALL
    assert identity().speed == 1.0


def test_unix_seconds_become_utc() -> None:
    assert from_unix(1_500_593_400.5) == datetime(2017, 7, 20, 23, 30, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_time_that_does_not_advance_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        AffineTime(MARKET, WALL, speed)
    with pytest.raises(ConfigError, match="speed"):
        check_speed(speed, 1.0, span_market_s=60)


def test_naive_epochs_are_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        AffineTime(MARKET.replace(tzinfo=None), WALL)


def test_a_speed_that_the_slowest_timer_cannot_follow_is_refused_with_the_highest() -> None:
    check_speed(180, 1.0, span_market_s=900, timer="the revert timer")
    with pytest.raises(ConfigError, match=r"the revert timer needs 1 s; use --speed 900 or less"):
        check_speed(901, 1.0, span_market_s=900, timer="the revert timer")
