"""Telling devices what is stored: at once, and then no more often than they need to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

Stored = Callable[[str, int, int], None]
"""Device, boot, and the sequence number up to which everything is stored."""

_REST_S: Final = 0.5
"""Wall seconds between two confirmations to one device.

A confirmation only lets a device forget what it keeps, and it covers everything before it: one
that sends several messages a second (a backlog, a fast simulation) gets one for all of them.
"""


class Confirmations:
    """Passes on the newest of what is stored of each device."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._resting: dict[str, tuple[int, int] | None] = {}
        """Devices that were told lately, with what they have not been told since."""
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def stored(self, device_id: str, boot: int, through: int) -> None:
        """Tell a device, now or when it was told long enough ago."""
        if device_id in self._resting:
            self._resting[device_id] = (boot, through)
        else:
            self._tell(device_id, boot, through)

    def close(self) -> None:
        """Tell nobody any more: devices send again what they were not told of."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._resting.clear()

    def _tell(self, device_id: str, boot: int, through: int) -> None:
        self._stored(device_id, boot, through)
        self._resting[device_id] = None
        loop = asyncio.get_running_loop()
        self._timers[device_id] = loop.call_later(_REST_S, self._rested, device_id)

    def _rested(self, device_id: str) -> None:
        untold = self._resting.pop(device_id)
        del self._timers[device_id]
        if untold is not None:
            self._tell(device_id, *untold)
