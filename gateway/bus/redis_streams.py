"""The bus between processes: Redis Streams with consumer groups.

The records of a commit are packed into one entry of a capped stream. Every stage is a
consumer group: what it took and did not acknowledge comes again after a crash. The
journal is the truth: whoever may have missed an entry is told to read it, and while
Redis is away the street goes on by reading it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Final

from redis.asyncio import Redis

from gateway.bus.client import FAILURES, heed_cancellation
from gateway.bus.outage import Outage
from gateway.bus.packing import pack
from gateway.bus.redis_subscription import FIELD, RedisSubscription, StreamLimits, StreamLink
from gateway.store.engine import back_off
from marketplace_core.ports import Record

_PUBLISHER: Final = "publisher"


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
        self._link = StreamLink(
            client=client,
            streams=[f"{prefix}:journal:{number}" for number in range(streams)],
            consumer=consumer,
            key=key,
            limits=limits or StreamLimits(),
            outage=Outage("redis", show),
        )
        self._outbox: deque[Record] = deque()
        self._waiting = asyncio.Event()
        self._subscriptions: list[RedisSubscription] = []

    def subscribe(self, group: str) -> RedisSubscription:
        """A subscription that sees everything published from now on; before `run`."""
        subscription = RedisSubscription(self._link, group)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, records: list[Record]) -> None:
        """Queue committed records for the server; never blocks.

        While the server is away there is nothing to queue for: the subscribers of this process
        are sent to the journal at once, those of others go there on their own.
        """
        working = self._link.outage.over(_PUBLISHER)
        if working and len(self._outbox) + len(records) <= self._link.limits.queue:
            self._outbox.extend(records)
        elif working:
            self._outbox.clear()
            self._send_to_journal()
        for subscription in self._subscriptions:
            if not (working and self._link.outage.over(subscription.group)):
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
        await self._link.client.aclose()

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
                self._link.outage.failed(_PUBLISHER, error)
                self._send_to_journal()
                self._waiting.set()  # to try the server again, with or without records
                await asyncio.sleep(next(waits))
            else:
                self._link.outage.recovered(_PUBLISHER)
                waits = back_off(float("inf"))

    async def _add(self, records: list[Record]) -> None:
        if not records:
            await self._link.client.ping()
            return
        by_stream: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_stream[self._link.streams[record.shard % len(self._link.streams)]].append(record)
        limits = self._link.limits
        sizes = {"most_records": limits.entry_records, "most_bytes": limits.entry_bytes}
        async with self._link.client.pipeline(transaction=False) as pipeline:
            for stream, packed in by_stream.items():
                for entry in pack(packed, self._link.key, **sizes):
                    pipeline.xadd(stream, {FIELD: entry}, maxlen=limits.entries, approximate=True)
            await pipeline.execute()

    def _send_to_journal(self) -> None:
        for subscription in self._subscriptions:
            subscription.lag()
