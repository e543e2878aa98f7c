"""Short reads of the market database for the API, off the event loop or on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine

from gateway.store.engine import run_read

T = TypeVar("T")
_THREADS = 4


class Reads:
    """Runs a read inline, or in one of a few threads of its own.

    Threads keep a long list from holding up commands; inline serves where there are no
    threads, as in virtual time.
    """

    def __init__(self, engine: Engine, *, inline: bool = False) -> None:
        self._engine = engine
        self._pool = None if inline else ThreadPoolExecutor(_THREADS, "api-read")

    async def run(self, read: Callable[[Connection], T]) -> T:
        """The result of a read, in a transaction of its own that sees one state."""
        return await self.compute(lambda: run_read(self._engine, read))

    async def compute(self, work: Callable[[], T]) -> T:
        """The result of work that would hold up the loop, such as hashing a password."""
        if self._pool is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Let the threads end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
