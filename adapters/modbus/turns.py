"""Whose turn it is on a line: one at a time, commands before polls."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

COMMAND: Final = 0
POLL: Final = 1


class Turns:
    """Hands the line on in the order of lane and arrival."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._busy = False
        self._commands = 0

    @property
    def idle(self) -> bool:
        """Whether nobody has the line, and so nobody waits for it."""
        return not self._busy

    @contextmanager
    def command(self) -> Iterator[None]:
        """All that belongs to one command: no poll comes between its requests."""
        self._commands += 1
        try:
            yield
        finally:
            self._commands -= 1
            if not self._busy:
                self._busy = True
                self.pass_on()

    def take(self, lane: int) -> bool:
        """Have the line at once, if nobody else has it or comes first."""
        if self._busy or (lane != COMMAND and (self._commands or self._waiting)):
            return False
        self._busy = True
        return True

    async def wait(self, lane: int, pause: Callable[[], Awaitable[bool]]) -> None:
        """Have the line in turn; whoever has it hands it on with `pass_on`.

        `pause` waits for what the line itself needs first (its silence, another master's turn)
        and says whether it did. A poll that sat it out stands back for a command that came in it.
        """
        number = next(self._numbers)
        if self._busy or self._stands_back(lane):
            await self._await(self._queue(lane, number))
        self._busy = True
        while await self._paused(pause) and self._stands_back(lane):
            turn = self._queue(lane, number)
            self.pass_on()
            await self._await(turn)

    async def _paused(self, pause: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await pause()
        except BaseException:
            self.pass_on()
            raise

    def _queue(self, lane: int, number: int) -> asyncio.Future[None]:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (lane, number, turn))
        return turn

    async def _await(self, turn: asyncio.Future[None]) -> None:
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.pass_on()  # it was our turn: the next one gets it
            raise

    def _stands_back(self, lane: int) -> bool:
        if lane == COMMAND:
            return False
        waiting = (turn for first, _, turn in self._waiting if first == COMMAND)
        return self._commands > 0 or not all(turn.done() for turn in waiting)

    def pass_on(self) -> None:
        """Hand the line on to whoever comes next."""
        while self._waiting:
            lane, _, turn = self._waiting[0]
            if not turn.done() and lane != COMMAND and self._commands > 0:
                break
            heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False
