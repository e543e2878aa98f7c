"""One stage's place in its consumer group of the Redis bus."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.bus.client import FAILURES, heed_cancellation
from gateway.bus.local import Subscription
from gateway.bus.outage import Outage
from gateway.bus.packing import unpack
from gateway.store.engine import back_off
from marketplace_core.ports import Record

FIELD: Final = b"p"
"""The one field of an entry."""
_GONE_MS: Final = 3_600_000
"""A consumer without pending entries that was silent for this long is removed."""
EntryId = tuple[str, bytes]
"""Stream and entry id."""


class StreamLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Every limit of the bus; seconds are wall seconds."""

    queue: int = 10_000
    """Most records that wait for one subscriber, or for the server."""
    entries: int = 100_000
    """About how many entries a stream keeps; older ones are in the journal only."""
    entry_records: int = 1_000
    """Most records packed into one entry."""
    entry_bytes: int = 4 * 1024 * 1024
    """Most bytes of facts packed into one entry."""
    read: int = 100
    """Most entries read at once."""
    timeout_s: float = 1.0
    """A server that does not answer for this long is away."""
    check_s: float = 5.0
    """A subscriber reads the journal this often in any case: the last entries may be lost."""
    claim_after_s: float = 30.0
    """Entries that another process took and never acknowledged are taken over after this."""


class StreamLink(msgspec.Struct, frozen=True, kw_only=True):
    """What publisher and subscribers of one bus share."""

    client: Redis
    streams: list[str]
    """Keys of the streams."""
    consumer: str
    """Names this process in every group."""
    key: bytes
    """Entries packed with another key are not believed."""
    limits: StreamLimits
    outage: Outage


class RedisSubscription(Subscription):
    """One stage's consumer in its group."""

    def __init__(self, link: StreamLink, group: str) -> None:
        super().__init__(link.limits.queue)
        self._link = link
        self.group = group
        self._arrived: list[EntryId] = []
        self._taken: list[EntryId] = []
        self._done: list[EntryId] = []
        self._room = asyncio.Event()
        self._check_at = 0.0
        self._claim_at = 0.0

    async def take(self) -> list[Record] | None:
        """All records that arrived; None when the journal must be read."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._check_at:
            self.lag()
        try:
            async with asyncio.timeout_at(self._check_at):
                records = await super().take()
        except TimeoutError:
            records = None
        self._taken += self._arrived
        self._arrived.clear()
        self._room.set()
        if records is None:
            self._check_at = loop.time() + self._link.limits.check_s
        return records

    def acknowledge(self) -> None:
        """Let the server forget what was taken so far, with the next read."""
        self._done += self._taken
        self._taken.clear()

    async def run(self) -> None:
        """Read entries until cancelled, whatever the server does."""
        waits = back_off(float("inf"))
        while True:
            heed_cancellation()
            try:
                await self._prepare()
                self.lag()  # what was published before the group was there is in the journal
                self._link.outage.recovered(self.group)
                waits = back_off(float("inf"))
                while True:
                    heed_cancellation()
                    await self._step()
            except FAILURES as error:
                self._link.outage.failed(self.group, error)
                self.lag()
                await asyncio.sleep(next(waits))

    async def _prepare(self) -> None:
        client, group, consumer = self._link.client, self.group, self._link.consumer
        self._claim_at = 0.0
        for stream in self._link.streams:
            try:
                await client.xgroup_create(stream, group, id="$", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
            await self._take_own(stream)
            for other in await client.xinfo_consumers(stream, group):
                gone = other["pending"] == 0 and other["idle"] > _GONE_MS
                if gone and other["name"] != consumer.encode():
                    await client.xgroup_delconsumer(stream, group, other["name"])

    async def _take_own(self, stream: str) -> None:
        """What this consumer took before it crashed and never acknowledged."""
        after: bytes | str = "0"
        while True:
            answer: Any = await self._link.client.xreadgroup(
                self.group, self._link.consumer, {stream: after}, count=self._link.limits.read
            )
            entries = answer[0][1] if answer else []
            if not entries:
                return
            self._deliver(stream, entries)
            after = entries[-1][0]

    async def _step(self) -> None:
        loop, limits = asyncio.get_running_loop(), self._link.limits
        while len(self._arrived) >= limits.queue:
            self._room.clear()
            await self._room.wait()
        await self._forget()
        if loop.time() >= self._claim_at:
            self._claim_at = loop.time() + limits.claim_after_s
            for stream in self._link.streams:
                await self._claim(stream)
        answer: Any = await self._link.client.xreadgroup(
            self.group, self._link.consumer, dict.fromkeys(self._link.streams, ">"),
            count=limits.read, block=int(limits.timeout_s * 500),
        )  # fmt: skip
        for name, entries in answer or []:
            self._deliver(name.decode(), entries)

    async def _claim(self, stream: str) -> None:
        """Take over what a process that is gone took and never acknowledged."""
        start: bytes | str = "0-0"
        idle_ms = int(self._link.limits.claim_after_s * 1000)
        while True:
            start, entries, _ = await self._link.client.xautoclaim(
                stream, self.group, self._link.consumer, min_idle_time=idle_ms, start_id=start,
                count=self._link.limits.read,
            )  # fmt: skip
            self._deliver(stream, entries)
            if start == b"0-0":
                return

    async def _forget(self) -> None:
        by_stream: dict[str, list[bytes]] = defaultdict(list)
        for stream, entry_id in self._done:
            by_stream[stream].append(entry_id)
        for stream, ids in by_stream.items():
            await self._link.client.xack(stream, self.group, *ids)
        self._done.clear()

    def _deliver(self, stream: str, entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> None:
        for entry_id, fields in entries:
            # A pending entry that was cut off the stream comes without fields.
            records = unpack(fields.get(FIELD, b""), self._link.key) if fields else None
            self._arrived.append((stream, entry_id))
            if records is None:
                self.lag()
            else:
                self.offer(records)
