"""An event loop whose time is virtual: when nothing is ready it jumps to what is due next."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Final, TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_RESOLUTION_S: Final = 1e-6
_PATIENCE_S: Final = 30.0
"""Real seconds that held time waits for a thread before the day counts as stuck."""


class StuckError(RuntimeError):
    """Nothing is ready and nothing is due: the day would wait for ever."""


class _Selector(selectors.SelectSelector):
    """Never waits while time may jump."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.held = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; without anything, time moves on by `timeout`."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.held:
            ready = super().select(_PATIENCE_S if timeout is None else min(timeout, _PATIENCE_S))
            if not ready and timeout is None:
                raise StuckError("a thread that was waited for does not answer")
            return ready
        if timeout is None:
            raise StuckError("nothing is ready and nothing is due")
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at 0 seconds. What asyncio would hand to a thread runs in the loop, at once."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = _RESOLUTION_S

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual.now

    @contextlib.contextmanager
    def holding_time(self) -> Iterator[None]:
        """Keep time from moving: for what has to happen within one instant."""
        self._virtual.held += 1
        try:
            yield
        finally:
            self._virtual.held -= 1

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Run it here and now: a thread would finish at an instant that nobody chose."""
        del executor
        done: asyncio.Future[_T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits it
            done.set_exception(error)
        return done
