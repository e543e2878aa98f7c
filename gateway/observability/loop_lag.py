"""How late the event loop wakes a timer: what everything else in the process waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_EVERY_S: Final = 0.25


async def measure_loop_lag(observe: Callable[[float], None], every_s: float = _EVERY_S) -> None:
    """Hand the seconds by which each timer was late to `observe`, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
        observe(max(0.0, loop.time() - due))
