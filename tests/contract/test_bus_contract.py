"""The bus: in process and on Redis Streams, whoever follows it gets every record in order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from gateway.bus.client import open_redis
from gateway.bus.local import LocalBus
from gateway.bus.packing import pack, unpack
from gateway.bus.redis_streams import RedisBus, StreamLimits
from marketplace_core.events import OrderRejected
from marketplace_core.ports import Bus, Record, Subscription
from tests.harness.clocks import eventually
from tests.harness.servers import PASSWORD, RedisServer, redis

pytestmark = [pytest.mark.process]
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


MakeBus = Callable[..., Bus]


@pytest.fixture(params=["local", "redis"])
def make_bus(request: pytest.FixtureRequest) -> MakeBus:
    if request.param == "local":
        return lambda *, queue=10_000: LocalBus(limit=queue)
    server: RedisServer = request.getfixturevalue("redis_server")

    def make(*, queue: int = 10_000) -> Bus:
        return redis_bus(server, queue=queue)

    return make


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


async def quiet(follower: Follower) -> int:
    """Wait until a Redis subscription has its group; return how often it was told to read."""
    before = -1
    while before != follower.told:
        before = follower.told
        await asyncio.sleep(0.2)
    return before


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


# What only Redis can do, or fail to do.


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


@pytest.mark.parametrize(
    ("most_records", "most_bytes", "sizes"),
    [(4, 10**6, [4, 4, 2]), (100, 10**6, [10]), (100, 1, [1] * 10)],
)
def test_entries_stay_within_their_limits(
    most_records: int, most_bytes: int, sizes: list[int]
) -> None:
    records = [record(number) for number in range(10)]
    entries = list(pack(records, KEY, most_records=most_records, most_bytes=most_bytes))
    opened = [unpack(entry, KEY) or [] for entry in entries]
    assert [len(found) for found in opened] == sizes
    assert [r for found in opened for r in found] == records


def test_a_changed_entry_is_not_believed() -> None:
    (entry,) = pack([record(0)], KEY, most_records=10, most_bytes=1000)
    for place in range(len(entry)):
        changed = bytearray(entry)
        changed[place] ^= 1
        assert unpack(bytes(changed), KEY) is None
    assert unpack(b"", KEY) is None
    assert unpack(entry, b"another") is None
