"""Readings to the disk: many messages share a commit, and nobody is told before it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import structlog

from adapters.mqtt.session import Acknowledge
from marketplace_core.errors import FencedError, StoreError
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
    """Store, however long it takes: unacknowledged messages stay with the broker meanwhile.

    Raises: FencedError once another process took over.
    """
    while True:
        try:
            await sink.store(readings)
        except FencedError:
            raise  # another process stores them now: this one has to end
        except StoreError as error:
            _log.error("readings_not_stored", error=str(error), readings=len(readings))
            await asyncio.sleep(_RETRY_S)
        else:
            return


def acknowledge_all(messages: Iterable[tuple[Acknowledge, int]]) -> None:
    """Tell the broker, each session together and in the order of arrival."""
    done: dict[Acknowledge, list[int]] = {}
    for acknowledge, mid in messages:
        done.setdefault(acknowledge, []).append(mid)
    for acknowledge, mids in done.items():
        acknowledge(mids)


class _Message(NamedTuple):
    readings: Sequence[Reading]
    mid: int
    acknowledge: Acknowledge


class Room:
    """Room for readings that wait for the disk; what finds none is counted."""

    def __init__(self) -> None:
        self.shed = 0
        """Readings dropped because the disk was too far behind."""
        self._held = 0
        self._shedding = False

    def take(self, readings: int, *, always: bool = False) -> bool:
        """Whether there is room for so many, or `always`; else they are shed."""
        if not always and self._held + readings > _MOST_WAITING:
            if not self._shedding:
                self._shedding = True
                _log.error("readings_shed", waiting=self._held)
            self.shed += readings
            return False
        if readings:
            self._shedding = False
        self._held += readings
        return True

    def leave(self, readings: int) -> None:
        """So many are on disk."""
        self._held -= readings


class Commits:
    """Gathers the readings of many messages for one commit."""

    def __init__(self, sink: ReadingSink) -> None:
        self._sink = sink
        self._waiting: list[_Message] = []
        self._room = Room()
        self._fresh = asyncio.Event()

    @property
    def shed(self) -> int:
        """Readings dropped because the disk was too far behind."""
        return self._room.shed

    def add(self, readings: Sequence[Reading], *, mid: int, acknowledge: Acknowledge) -> None:
        """Take a message; `acknowledge` hears of its `mid` once its readings are committed.

        A message without readings is acknowledged in its turn.
        """
        if not self._room.take(len(readings)):
            readings = ()
        self._waiting.append(_Message(readings, mid, acknowledge))
        self._fresh.set()

    async def run(self) -> None:
        """Commit until cancelled; what waits then is never acknowledged."""
        while True:
            await self._fresh.wait()
            await asyncio.sleep(_GATHER_S)
            batch = self._waiting[:_MOST]
            readings = [reading for message in batch for reading in message.readings]
            if readings:
                await store_at_last(self._sink, readings)
            del self._waiting[: len(batch)]
            self._room.leave(len(readings))
            if not self._waiting:
                self._fresh.clear()
            acknowledge_all((message.acknowledge, message.mid) for message in batch)
