"""Simulated time that stands until a file says that it runs."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.beginning import awaited_time, begin
from gateway.clock import SystemClock
from marketplace_core.errors import ConfigError
from marketplace_core.simtime import AffineTime, from_unix

NOON = datetime(2017, 7, 20, 19, tzinfo=UTC)


def test_time_stands_until_the_file_is_there(tmp_path: Path) -> None:
    awaited = awaited_time(NOON, 360.0, tmp_path / "begun")
    now = datetime.now(UTC)
    assert awaited.to_market(now) == awaited.to_market(now + timedelta(hours=1)) == NOON
    ahead = awaited.to_wall(NOON + timedelta(days=1)) - now
    assert timedelta(0) < ahead < timedelta(seconds=60)  # who waits looks again soon


def test_once_it_runs_it_is_the_affine_map_in_both_directions(tmp_path: Path) -> None:
    awaited = awaited_time(NOON, 360.0, tmp_path / "begun")
    assert awaited.to_market(datetime.now(UTC)) == NOON
    begin(tmp_path / "begun", 1_800_000_000.25)
    affine = AffineTime(NOON, from_unix(1_800_000_000.25), 360.0)
    assert awaited.speed == affine.speed
    for seconds in (-5, 0, 0.5, 3600):
        wall = affine.wall_epoch + timedelta(seconds=seconds)
        assert awaited.to_market(wall) == affine.to_market(wall)
        assert awaited.to_wall(affine.to_market(wall)) == affine.to_wall(affine.to_market(wall))


def test_a_process_that_starts_later_reads_the_same_beginning(tmp_path: Path) -> None:
    begin(tmp_path / "begun", 1_800_000_000.0)
    first, second = (awaited_time(NOON, 60.0, tmp_path / "begun") for _ in range(2))
    at = from_unix(1_800_000_090.0)
    assert first.to_market(at) == second.to_market(at) == NOON + timedelta(seconds=90 * 60)


def test_a_file_without_a_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "begun").write_text("soon")
    with pytest.raises(ConfigError, match="holds no Unix seconds"):
        awaited_time(NOON, 60.0, tmp_path / "begun").to_market(datetime.now(UTC))


async def test_who_sleeps_while_time_stands_wakes_when_it_has_run_far_enough(
    tmp_path: Path,
) -> None:
    clock = SystemClock(awaited_time(NOON, 3600.0, tmp_path / "begun"))
    async with asyncio.timeout(30):
        sleeping = asyncio.ensure_future(clock.sleep_until(NOON + timedelta(minutes=1)))
        await asyncio.sleep(0)
        assert not sleeping.done()
        begin(tmp_path / "begun", time.time())
        await sleeping
    assert clock.now() >= NOON + timedelta(minutes=1)
