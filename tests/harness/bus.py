"""What follows a bus in tests: a journal, a carrier's bare bones, a Redis bus."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from gateway.bus.client import open_redis
from gateway.bus.redis_streams import RedisBus
from gateway.bus.redis_subscription import StreamLimits
from marketplace_core.events import OrderRejected
from marketplace_core.ports import Bus, Record, Subscription
from tests.harness.clocks import eventually
from tests.harness.servers import PASSWORD, RedisServer

START = datetime(2017, 7, 20, 23, 30, tzinfo=UTC)
KEY = b"the key of this process"
SHARDS = 3
_prefixes = itertools.count()


def record(number: int, *, reason: str = "r") -> Record:
    """The n-th record of a journal of three shards."""
    return Record(
        shard=number % SHARDS, sequence=number // SHARDS + 1,
        at=START + timedelta(microseconds=number), stream=f"ord_{number % SHARDS}",
        fact=OrderRejected(order_id=f"ord_{number}", reason=reason),
    )  # fmt: skip


class Journal:
    """What is committed; publishes as the writer does."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.records: list[Record] = []

    def commit(self, count: int, *, lost: bool = False) -> None:
        first = len(self.records)
        made = [record(number) for number in range(first, first + count)]
        self.records += made
        if not lost:
            self.bus.publish(made)


class Follower:
    """What a carrier does: take, read the journal when told to or when there is a gap."""

    def __init__(self, journal: Journal, subscription: Subscription) -> None:
        self._journal = journal
        self._subscription = subscription
        self._seen: dict[int, int] = {}
        self.handled: list[Record] = []
        self.by_bus = 0
        self.told = 0

    async def run(self) -> None:
        while True:
            records = await self._subscription.take()
            if records is None:
                self.told += 1
            if records is None or not self._accept(records):
                self._accept(self._journal.records)
            else:
                self.by_bus += len(records)
            self._subscription.acknowledge()

    def _accept(self, records: list[Record]) -> bool:
        for found in records:
            next_one = self._seen.get(found.shard, 0) + 1
            if found.sequence > next_one:
                return False
            if found.sequence == next_one:
                self._seen[found.shard] = next_one
                self.handled.append(found)
        return True

    async def has(self, count: int) -> None:
        await eventually(lambda: len(self.handled) >= count, seconds=20, what=f"{count} records")


def redis_bus(
    server: RedisServer, *, prefix: str = "", consumer: str = "one", key: bytes = KEY,
    shown: list[bool] | None = None, streams: int = 2, **limits: float,
) -> RedisBus:  # fmt: skip
    settings = {"timeout_s": 1.0, "check_s": 60.0, **limits}
    return RedisBus(
        open_redis(server.url, password=PASSWORD, timeout_s=settings["timeout_s"]),
        prefix=prefix or f"flexway-{next(_prefixes)}", consumer=consumer, key=key,
        show=(shown if shown is not None else []).append, streams=streams,
        limits=StreamLimits(**settings),  # type: ignore[arg-type]
    )  # fmt: skip


@asynccontextmanager
async def running(bus: Bus, *followers: Follower) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(bus.run())]
        running += [tasks.create_task(follower.run()) for follower in followers]
        yield
        for task in running:
            task.cancel()
    await bus.close()


async def quiet(follower: Follower) -> int:
    """Wait until a Redis subscription has its group; return how often it was told to read."""
    before = -1
    while before != follower.told:
        before = follower.told
        await asyncio.sleep(0.2)
    return before
