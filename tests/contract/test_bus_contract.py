"""The bus: in process and on Redis Streams, whoever follows it gets every record in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.bus.local import LocalBus
from marketplace_core.ports import Bus
from tests.harness.bus import SHARDS, Follower, Journal, quiet, record, redis_bus, running
from tests.harness.servers import RedisServer

pytestmark = [pytest.mark.process]
MakeBus = Callable[..., Bus]


@pytest.fixture(params=["local", "redis"])
def make_bus(request: pytest.FixtureRequest) -> MakeBus:
    if request.param == "local":
        return lambda *, queue=10_000: LocalBus(limit=queue)
    server: RedisServer = request.getfixturevalue("redis_server")

    def make(*, queue: int = 10_000) -> Bus:
        return redis_bus(server, queue=queue)

    return make


async def test_every_group_gets_every_record_in_order(make_bus: MakeBus) -> None:
    bus = make_bus()
    journal = Journal(bus)
    followers = [Follower(journal, bus.subscribe(name)) for name in ("award", "plan")]
    async with running(bus, *followers):
        for size in (1, 2, 300, 5):
            journal.commit(size)
            await asyncio.sleep(0.02)
        for follower in followers:
            await follower.has(308)
            by_shard = {s: [r for r in follower.handled if r.shard == s] for s in range(SHARDS)}
            for shard, found in by_shard.items():
                assert found == [r for r in journal.records if r.shard == shard]


async def test_records_come_by_the_bus_and_not_by_reading_the_journal(make_bus: MakeBus) -> None:
    bus = make_bus()
    journal = Journal(bus)
    follower = Follower(journal, bus.subscribe("award"))
    async with running(bus, follower):
        journal.commit(1)
        await follower.has(1)
        told = await quiet(follower)
        journal.commit(50)
        await follower.has(51)
        assert follower.by_bus >= 50
        assert follower.told == told


async def test_a_subscriber_that_lags_is_told_and_goes_on(make_bus: MakeBus) -> None:
    bus = make_bus(queue=10)
    journal = Journal(bus)
    subscription = bus.subscribe("award")
    follower = Follower(journal, subscription)
    async with running(bus):
        for _ in range(5):
            journal.commit(5)
            await asyncio.sleep(0.02)
        async with asyncio.timeout(5):
            assert await subscription.take() is None
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follower.run())
            journal.commit(3)
            await follower.has(28)
            following.cancel()
    assert sorted(follower.handled, key=lambda r: r.at) == journal.records


async def test_a_burst_beyond_every_limit_loses_nothing(make_bus: MakeBus) -> None:
    bus = make_bus(queue=100)
    journal = Journal(bus)
    follower = Follower(journal, bus.subscribe("award"))
    async with running(bus, follower):
        for _ in range(20):
            journal.commit(90)
        journal.commit(150)
        await follower.has(1950)
    assert len(follower.handled) == 1950


async def test_publishing_never_waits(make_bus: MakeBus) -> None:
    """Nobody runs the bus, nobody takes: publishing still returns at once."""
    bus = make_bus(queue=10)
    bus.subscribe("award")
    for number in range(200):
        bus.publish([record(number)])


async def test_records_lost_between_commit_and_bus_are_found(make_bus: MakeBus) -> None:
    bus = make_bus()
    journal = Journal(bus)
    follower = Follower(journal, bus.subscribe("award"))
    async with running(bus, follower):
        journal.commit(3)
        await follower.has(3)
        journal.commit(4, lost=True)
        journal.commit(3)
        await follower.has(10)
