"""The service's clock: market time over the wall clock."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from marketplace_core.ports import TimeMap

_LONGEST_NAP = timedelta(seconds=30)
"""Upper bound of one sleep in wall time, so that a stepped wall clock is noticed."""


class SystemClock:
    """Implements the Clock port; `time_map` is the identity outside simulations."""

    def __init__(self, time_map: TimeMap) -> None:
        self._map = time_map

    def now(self) -> datetime:
        """Current market time, aware UTC."""
        return self._map.to_market(datetime.now(UTC))

    def monotonic(self) -> float:
        """Monotonic wall seconds."""
        return time.monotonic()

    def wall_seconds(self, market_seconds: float) -> float:
        """Wall seconds that a span of market time takes."""
        return market_seconds / self._map.speed

    async def sleep_until(self, at: datetime) -> None:
        """Return once market time has reached `at`."""
        while (left := self._left(at)) > timedelta(0):  # noqa: ASYNC110 - it is time we wait for
            await asyncio.sleep(min(left, _LONGEST_NAP).total_seconds())

    def _left(self, at: datetime) -> timedelta:
        return self._map.to_wall(at) - datetime.now(UTC)
