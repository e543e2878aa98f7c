"""Clocks and time maps for tests."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class IdentityTime:
    """Market time is wall time."""

    speed = 1.0

    def to_market(self, wall: datetime) -> datetime:
        return wall

    def to_wall(self, market: datetime) -> datetime:
        return market


class WallClock:
    """The Clock port over the wall clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_seconds(self, market_seconds: float) -> float:
        return market_seconds

    async def sleep_until(self, at: datetime) -> None:
        left = (at - self.now()) / timedelta(seconds=1)
        if left > 0:
            await asyncio.sleep(left)


async def eventually(
    condition: Callable[[], bool], *, seconds: float = 10.0, what: str = ""
) -> None:
    """Wait for a condition on the running loop; TimeoutError names what was waited for."""
    deadline = time.monotonic() + seconds
    for _ in itertools.count():
        if condition():
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what or condition}")
        await asyncio.sleep(0.01)


class SteppingClock:
    """Market time that moves one second at every look; nothing waits."""

    def __init__(self) -> None:
        self.at = datetime(2017, 7, 20, 23, 0, tzinfo=UTC)

    def now(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def wall_seconds(self, market_seconds: float) -> float:
        return market_seconds

    async def sleep_until(self, at: datetime) -> None:
        self.at = max(self.at, at)
        await asyncio.sleep(0)
