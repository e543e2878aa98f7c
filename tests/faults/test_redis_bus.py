"""What only Redis can do, or fail to do: crashed readers, cut streams, outages, forged entries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from marketplace_core.ports import Record, Subscription
from tests.harness.bus import Follower, Journal, quiet, record, redis_bus, running
from tests.harness.clocks import eventually
from tests.harness.servers import RedisServer, redis

pytestmark = [pytest.mark.process]


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with redis() as server:
        yield server


async def test_a_tail_that_was_never_published_is_found_by_the_check(
    redis_server: RedisServer,
) -> None:
    bus = redis_bus(redis_server, check_s=0.3)
    journal = Journal(bus)
    follower = Follower(journal, bus.subscribe("award"))
    async with running(bus, follower):
        await quiet_for(0.1)
        journal.commit(4, lost=True)
        await follower.has(4)


async def quiet_for(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def test_two_processes_share_the_streams(redis_server: RedisServer) -> None:
    one = redis_bus(redis_server, prefix="shared", consumer="one")
    other = redis_bus(redis_server, prefix="shared", consumer="other")
    journal = Journal(one)
    here = Follower(journal, one.subscribe("award"))
    there = Follower(journal, other.subscribe("plan"))
    async with running(one, here), running(other, there):
        await quiet(there)
        journal.commit(30)
        await here.has(30)
        await there.has(30)
        assert there.by_bus >= 30


async def test_what_was_not_acknowledged_before_a_crash_is_not_forgotten(
    redis_server: RedisServer,
) -> None:
    """Started again the process reads the journal, and only then acknowledges for good."""
    bus = redis_bus(redis_server, prefix="crash")
    subscription = bus.subscribe("award")
    async with running(bus):
        await drain(subscription)
        bus.publish([record(0), record(1)])
        assert await take_all(subscription, 2) == [record(0), record(1)]
    assert pending(redis_server, "crash", "award") == 2
    again = redis_bus(redis_server, prefix="crash")
    subscription = again.subscribe("award")
    async with running(again):
        await drain(subscription)
        assert pending(redis_server, "crash", "award") == 2
        subscription.acknowledge()
        await eventually(lambda: pending(redis_server, "crash", "award") == 0, what="the ack")


async def test_what_a_dead_process_held_is_taken_over_by_another(
    redis_server: RedisServer,
) -> None:
    dying = redis_bus(redis_server, prefix="dead", consumer="one")
    living = redis_bus(redis_server, prefix="dead", consumer="other", claim_after_s=0.3)
    held = dying.subscribe("award")
    async with running(dying):
        await drain(held)
        dying.publish([record(0), record(1)])
        assert await take_all(held, 2) == [record(0), record(1)]
    subscription = living.subscribe("award")
    async with running(living):
        assert await take_all(subscription, 2) == [record(0), record(1)]
        subscription.acknowledge()
        await eventually(lambda: pending(redis_server, "dead", "award") == 0, what="the ack")


def pending(server: RedisServer, prefix: str, group: str) -> int:
    answers = [server.keys("XPENDING", f"{prefix}:journal:{n}", group) for n in range(2)]
    return sum(int(answer.splitlines()[0]) for answer in answers)


async def drain(subscription: Subscription) -> None:
    """Take until nothing comes: what a subscription is told while it gets its group."""
    while True:
        try:
            async with asyncio.timeout(0.3):
                await subscription.take()
        except TimeoutError:
            return


async def take_all(subscription: Subscription, count: int) -> list[Record]:
    """Take until some records came, whatever else is told."""
    found: list[Record] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += await subscription.take() or []
    return sorted(found, key=lambda r: r.at)


async def test_what_another_key_packed_is_no_fact(redis_server: RedisServer) -> None:
    """Another installation, a restored database, a forger: the journal is read instead."""
    theirs = redis_bus(redis_server, prefix="mixed", consumer="other", key=b"another")
    bus = redis_bus(redis_server, prefix="mixed")
    journal = Journal(bus)
    follower = Follower(journal, bus.subscribe("award"))
    async with running(bus, follower), running(theirs):
        await quiet(follower)
        told = follower.told
        theirs.publish([record(0, reason="forged"), record(1, reason="forged")])
        redis_server.keys("XADD", "mixed:journal:0", "*", "p", "rubbish")
        redis_server.keys("XADD", "mixed:journal:1", "*", "q", "no such field")
        await eventually(lambda: follower.told > told, what="being told")
        journal.commit(6)
        await follower.has(6)
        assert {r.fact for r in follower.handled} == {r.fact for r in journal.records}


async def test_streams_are_capped_and_what_was_cut_off_is_read_from_the_journal(
    redis_server: RedisServer,
) -> None:
    def length() -> int:
        return int(redis_server.keys("XLEN", "capped:journal:0"))

    bus = redis_bus(redis_server, prefix="capped", streams=1, entries=100, queue=50,
                    entry_records=1)  # fmt: skip
    journal = Journal(bus)
    slow = bus.subscribe("slow")
    follower = Follower(journal, slow)
    async with running(bus):
        await quiet_for(0.3)
        for _ in range(60):
            journal.commit(10)
            await asyncio.sleep(0.01)
        await eventually(lambda: length() > 50, what="the stream to fill")
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follower.run())
            await follower.has(600)
            following.cancel()
        assert length() < 400


async def test_the_street_goes_on_without_redis_and_with_it_again() -> None:
    """Killed (and everything it held with it), started again empty, killed again."""
    shown: list[bool] = []
    with redis() as server:
        bus = redis_bus(server, shown=shown)
        journal = Journal(bus)
        follower = Follower(journal, bus.subscribe("award"))
        async with running(bus, follower):
            journal.commit(5)
            await follower.has(5)
            for _ in range(2):
                await asyncio.to_thread(server.kill)
                for _ in range(20):
                    before = len(journal.records)
                    journal.commit(3)
                    await follower.has(before + 3)
                assert shown[-1] is True
                await asyncio.to_thread(server.start)
                await eventually(lambda: shown[-1] is False, seconds=20, what="the recovery")
                told = await quiet(follower)
                by_bus = follower.by_bus
                journal.commit(7)
                await follower.has(len(journal.records))
                assert follower.by_bus >= by_bus + 7
                assert follower.told == told


async def test_a_server_that_hangs_is_given_up_in_time() -> None:
    with redis() as server:
        shown: list[bool] = []
        bus = redis_bus(server, shown=shown, timeout_s=0.2)
        journal = Journal(bus)
        follower = Follower(journal, bus.subscribe("award"))
        async with running(bus, follower):
            await quiet(follower)
            server.freeze()
            journal.commit(5)
            await follower.has(5)
            assert True in shown
            server.thaw()
            await eventually(lambda: shown[-1] is False, seconds=20, what="the recovery")
            journal.commit(5)
            await follower.has(10)
