"""The bus between processes: Redis Streams with consumer groups.

The records of a commit are packed into one entry of a capped stream. Every stage is a
consumer group: what it took and did not acknowledge comes again after a crash. The
journal is the truth: whoever may have missed an entry is told to read it, and while
Redis is away the street goes on by reading it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.bus.client import FAILURES, heed_cancellation
from gateway.bus.local import Subscription
from gateway.bus.outage import Outage
from gateway.bus.packing import pack, unpack
from gateway.store.engine import back_off
from marketplace_core.ports import Record

_FIELD: Final = b"p"
_PUBLISHER: Final = "publisher"
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


class RedisSubscription(Subscription):
    """One stage's consumer in its group."""

    def __init__(self, bus: RedisBus, group: str) -> None:
        super().__init__(bus.limits.queue)
        self._bus = bus
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
            self._check_at = loop.time() + self._bus.limits.check_s
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
                self._bus.outage.recovered(self.group)
                waits = back_off(float("inf"))
                while True:
                    heed_cancellation()
                    await self._step()
            except FAILURES as error:
                self._bus.outage.failed(self.group, error)
                self.lag()
                await asyncio.sleep(next(waits))

    async def _prepare(self) -> None:
        client, group, consumer = self._bus.client, self.group, self._bus.consumer
        self._claim_at = 0.0
        for stream in self._bus.streams:
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
            answer: Any = await self._bus.client.xreadgroup(
                self.group, self._bus.consumer, {stream: after}, count=self._bus.limits.read
            )
            entries = answer[0][1] if answer else []
            if not entries:
                return
            self._deliver(stream, entries)
            after = entries[-1][0]

    async def _step(self) -> None:
        loop, limits = asyncio.get_running_loop(), self._bus.limits
        while len(self._arrived) >= limits.queue:
            self._room.clear()
            await self._room.wait()
        await self._forget()
        if loop.time() >= self._claim_at:
            self._claim_at = loop.time() + limits.claim_after_s
            for stream in self._bus.streams:
                await self._claim(stream)
        answer: Any = await self._bus.client.xreadgroup(
            self.group, self._bus.consumer, dict.fromkeys(self._bus.streams, ">"),
            count=limits.read, block=int(limits.timeout_s * 500),
        )  # fmt: skip
        for name, entries in answer or []:
            self._deliver(name.decode(), entries)

    async def _claim(self, stream: str) -> None:
        """Take over what a process that is gone took and never acknowledged."""
        start: bytes | str = "0-0"
        idle_ms = int(self._bus.limits.claim_after_s * 1000)
        while True:
            start, entries, _ = await self._bus.client.xautoclaim(
                stream, self.group, self._bus.consumer, min_idle_time=idle_ms, start_id=start,
                count=self._bus.limits.read,
            )  # fmt: skip
            self._deliver(stream, entries)
            if start == b"0-0":
                return

    async def _forget(self) -> None:
        by_stream: dict[str, list[bytes]] = defaultdict(list)
        for stream, entry_id in self._done:
            by_stream[stream].append(entry_id)
        for stream, ids in by_stream.items():
            await self._bus.client.xack(stream, self.group, *ids)
        self._done.clear()

    def _deliver(self, stream: str, entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> None:
        for entry_id, fields in entries:
            # A pending entry that was cut off the stream comes without fields.
            records = unpack(fields.get(_FIELD, b""), self._bus.key) if fields else None
            self._arrived.append((stream, entry_id))
            if records is None:
                self.lag()
            else:
                self.offer(records)


class RedisBus:
    """Publishes committed records to Redis Streams and reads them for this process's stages."""

    def __init__(
        self,
        client: Redis,
        *,
        prefix: str,
        consumer: str,
        key: bytes,
        show: Callable[[bool], None],
        streams: int = 1,
        limits: StreamLimits | None = None,
    ) -> None:
        """`prefix` keeps installations on one server apart; `consumer` names this process.

        Records are believed only when they were packed with the same `key` (1 to 64 bytes):
        others make a subscriber read the journal. Journal shards spread over `streams`.
        """
        self.client = client
        self.consumer = consumer
        self.key = key
        self.limits = limits or StreamLimits()
        self.streams = [f"{prefix}:journal:{number}" for number in range(streams)]
        self.outage = Outage("redis", show)
        self._outbox: deque[Record] = deque()
        self._waiting = asyncio.Event()
        self._subscriptions: list[RedisSubscription] = []

    def subscribe(self, group: str) -> RedisSubscription:
        """A subscription that sees everything published from now on; before `run`."""
        subscription = RedisSubscription(self, group)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, records: list[Record]) -> None:
        """Queue committed records for the server; never blocks.

        While the server is away there is nothing to queue for: the subscribers of this process
        are sent to the journal at once, those of others go there on their own.
        """
        working = self.outage.over(_PUBLISHER)
        if working and len(self._outbox) + len(records) <= self.limits.queue:
            self._outbox.extend(records)
        elif working:
            self._outbox.clear()
            self._send_to_journal()
        for subscription in self._subscriptions:
            if not (working and self.outage.over(subscription.group)):
                subscription.lag()
        self._waiting.set()

    async def run(self) -> None:
        """Send and read until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            for subscription in self._subscriptions:
                tasks.create_task(subscription.run())

    async def close(self) -> None:
        """Give the connections up."""
        await self.client.aclose()

    async def _send(self) -> None:
        waits = back_off(float("inf"))
        while True:
            heed_cancellation()
            try:
                await self._waiting.wait()
                self._waiting.clear()
                records = list(self._outbox)
                self._outbox.clear()
                await self._add(records)
            except FAILURES as error:
                self._outbox.clear()
                self.outage.failed(_PUBLISHER, error)
                self._send_to_journal()
                self._waiting.set()  # to try the server again, with or without records
                await asyncio.sleep(next(waits))
            else:
                self.outage.recovered(_PUBLISHER)
                waits = back_off(float("inf"))

    async def _add(self, records: list[Record]) -> None:
        if not records:
            await self.client.ping()
            return
        by_stream: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_stream[self.streams[record.shard % len(self.streams)]].append(record)
        limits = self.limits
        sizes = {"most_records": limits.entry_records, "most_bytes": limits.entry_bytes}
        async with self.client.pipeline(transaction=False) as pipeline:
            for stream, packed in by_stream.items():
                for entry in pack(packed, self.key, **sizes):
                    pipeline.xadd(stream, {_FIELD: entry}, maxlen=limits.entries, approximate=True)
            await pipeline.execute()

    def _send_to_journal(self) -> None:
        for subscription in self._subscriptions:
            subscription.lag()
