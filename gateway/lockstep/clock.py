"""The clock of a virtual day."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta


class LockstepClock:
    """Implements the Clock port over the running loop's virtual time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: datetime) -> None:
        """`start` is the market time (aware UTC) at which the loop's time is 0."""
        self._loop = loop
        self._start = start

    def now(self) -> datetime:
        """Market time, to the microsecond."""
        return self._start + timedelta(microseconds=round(self._loop.time() * 1e6))

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    def wall_seconds(self, market_seconds: float) -> float:
        """The same: a virtual second is a market second."""
        return market_seconds

    async def sleep_until(self, at: datetime) -> None:
        """Return once market time has reached `at`."""
        left = (at - self.now()).total_seconds()
        if left > 0:
            await asyncio.sleep(left)
            await self.sleep_until(at)
