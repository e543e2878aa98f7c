"""Readings to the disk: many messages share a commit, and nobody is told before it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from marketplace_core.errors import StoreError
from marketplace_core.ports import ReadingSink
from marketplace_core.verification.reading import Reading

_GATHER_S: Final = 0.003
"""Wall seconds that readings are gathered for one commit."""
_MOST: Final = 2_000
"""Messages that share one commit at most."""
_MOST_WAITING: Final = 100_000
"""Readings that wait for the disk. Messages of QoS 0 come as fast as they are sent, nothing
holds their sender up: what comes above it is dropped and counted."""
_RETRY_S: Final = 1.0
"""Wall seconds between two tries to commit."""
_log = structlog.get_logger(__name__)


async def store_at_last(sink: ReadingSink, readings: Sequence[Reading]) -> None:
    """Store, however long it takes: unacknowledged messages stay with the broker meanwhile."""
    while True:
        try:
            await sink.store(readings)
        except StoreError as error:
            _log.error("readings_not_stored", error=str(error), readings=len(readings))
            await asyncio.sleep(_RETRY_S)
        else:
            return


class _Message(msgspec.Struct, gc=False):
    readings: Sequence[Reading]
    done: asyncio.Future[None]


class Commits:
    """Gathers the readings of many messages for one commit."""

    def __init__(self, sink: ReadingSink) -> None:
        self.shed = 0
        """Readings dropped because the disk was too far behind."""
        self._sink = sink
        self._waiting: list[_Message] = []
        self._held = 0
        self._shedding = False
        self._fresh = asyncio.Event()
        self._ended = False

    async def take(self, readings: Sequence[Reading]) -> None:
        """Return once the readings are committed, dropped, or given up as the adapter ends."""
        if not readings or self._ended:
            return
        if self._held + len(readings) > _MOST_WAITING:
            if not self._shedding:
                self._shedding = True
                _log.error("readings_shed", waiting=self._held)
            self.shed += len(readings)
            return
        self._shedding = False
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Message(readings, done))
        self._held += len(readings)
        self._fresh.set()
        await done

    async def run(self) -> None:
        """Commit until cancelled; what waits then is for `abandon`."""
        while True:
            await self._fresh.wait()
            await asyncio.sleep(_GATHER_S)
            batch = self._waiting[:_MOST]
            readings = [reading for message in batch for reading in message.readings]
            await store_at_last(self._sink, readings)
            del self._waiting[: len(batch)]
            self._held -= len(readings)
            if not self._waiting:
                self._fresh.clear()
            _let_go(batch)

    def abandon(self) -> None:
        """Let every `take` return although nothing was committed.

        Only when the connection is closed: what they acknowledge then reaches nobody.
        """
        self._ended = True
        _let_go(self._waiting)
        self._waiting.clear()


def _let_go(messages: Sequence[_Message]) -> None:
    for message in messages:
        if not message.done.done():
            message.done.set_result(None)
