"""Claims of shards, on a real PostgreSQL: one writer at a time, and a fenced one stores nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from gateway.store.claims import FRESH_S, Claims, living, unclaimed
from gateway.store.engine import open_engine
from gateway.store.passed_on import Finding, Passed, forget_old, pass_on, take
from gateway.store.readings_postgres import missing_in
from gateway.store.readings_worker import WorkerReadings
from marketplace_core.errors import ConfigError, FencedError
from marketplace_core.shards import EVERY_SHARD, ShardRange, shard_range
from marketplace_core.units import Kw
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading
from tests.harness.servers import PASSWORD, PostgresServer

pytestmark = [pytest.mark.process]
START = datetime(2026, 4, 1, tzinfo=UTC)
LOW, HIGH = shard_range("00-7f"), shard_range("80-ff")


def open_database(url: str) -> Engine:
    return open_engine(url, password=PASSWORD, patience_s=0.0)


def reading(number: int) -> Reading:
    start = START + timedelta(minutes=number)
    return Reading(
        series="ev-1", start=start, seconds=60.0, power_kw=Kw(-number), boot=1, sequence=number,
        wanted_kwh=3.0, leaves_at=START,
    )  # fmt: skip


@dataclass
class Database:
    url: str
    engine: Engine
    opened: list[WorkerReadings] = field(default_factory=list)

    def worker(self, name: str, shards: ShardRange, *, replaces: str = "") -> Claims:
        return Claims(self.engine, name, shards, replaces=replaces)

    def readings(self, claims: Claims) -> WorkerReadings:
        made = WorkerReadings(open_database(self.url), inline=True)
        made.claims = claims
        made.start()
        self.opened.append(made)
        return made

    def age(self, name: str) -> None:
        """Let a worker be silent for longer than a claim lasts."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE flexway_readings.claims SET seen = seen - %s * interval '1s'"
                " WHERE worker = %s", (FRESH_S + 1, name),
            )  # fmt: skip


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[Database]:
    url = postgres_server.database()
    engine = open_database(url)
    WorkerReadings(engine, inline=True).prepare()
    made = Database(url, engine)
    yield made
    for readings in made.opened:
        readings.stop()
    engine.dispose()


def test_workers_of_other_shards_live_side_by_side_and_what_is_free_is_known(
    database: Database,
) -> None:
    database.worker("a", shard_range("00-3f")).claim()
    database.worker("b", HIGH).claim()
    claims = living(database.engine)
    assert [(each.worker, str(each.shards)) for each in claims] == [("a", "00-3f"), ("b", "80-ff")]
    assert [str(each) for each in unclaimed(claims)] == ["40-7f"]
    database.age("b")
    assert [str(each) for each in unclaimed(living(database.engine))] == ["40-ff"]


def test_shards_of_a_living_worker_are_refused_and_named(database: Database) -> None:
    first = database.worker("a", LOW)
    first.claim()
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        first.renew()

    with pytest.raises(ConfigError, match=r"a \(00-7f, heard of 0 s ago\)"):
        database.worker("b", EVERY_SHARD).claim(sleep)
    assert FRESH_S <= waited[0] <= FRESH_S + 1
    first.renew()


async def test_a_silent_worker_is_replaced_and_stores_nothing_any_more(database: Database) -> None:
    first = database.worker("a", LOW)
    first.claim()
    old = database.readings(first)
    assert await old.store([reading(0)]) == [reading(0)]
    database.age("a")
    second = database.worker("b", EVERY_SHARD)
    second.claim(pytest.fail)
    new = database.readings(second)
    with pytest.raises(FencedError, match="taken over"):
        await old.store([reading(1)])
    with pytest.raises(FencedError):
        first.renew()
    # What the old one stored is known to the new one, what it could not is not.
    both = [reading(0), reading(1)]
    assert await new.store(both) == both[1:]
    first.give_up()  # takes nothing away from the new one
    assert [each.worker for each in second.renew()] == ["b"]


async def test_a_worker_that_comes_back_takes_over_from_itself_at_once(database: Database) -> None:
    before = database.worker("a", LOW)
    before.claim()
    again = database.worker("a", HIGH)
    again.claim(pytest.fail)
    with pytest.raises(FencedError):
        await database.readings(before).store([reading(0)])
    await database.readings(again).store([reading(0)])


def test_a_gateway_replaces_a_gateway_and_no_worker(database: Database) -> None:
    database.worker("gateway@one", EVERY_SHARD, replaces="gateway@").claim()
    other = database.worker("gateway@two", EVERY_SHARD, replaces="gateway@")
    other.claim(pytest.fail)
    with pytest.raises(ConfigError, match="gateway@two"):
        database.worker("ingest@one", LOW).claim(lambda _s: None)
    other.give_up()
    database.worker("ingest@one", LOW).claim(pytest.fail)
    with pytest.raises(ConfigError, match="--role dispatch"):
        database.worker("gateway@one", EVERY_SHARD, replaces="gateway@").claim(lambda _s: None)


async def test_a_take_over_waits_for_the_commit_that_is_under_way(database: Database) -> None:
    first = database.worker("a", LOW)
    first.claim()
    database.age("a")
    order: list[str] = []
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "SELECT 1 FROM flexway_readings.claims WHERE worker = 'a' FOR SHARE"
        )

        async def take_over() -> None:
            await asyncio.to_thread(database.worker("b", LOW).claim, pytest.fail)
            order.append("taken over")

        taking = asyncio.create_task(take_over())
        await asyncio.sleep(0.2)
        order.append("committed")
    await taking
    assert order == ["committed", "taken over"]


async def test_what_a_worker_stores_and_notices_is_passed_on_once(database: Database) -> None:
    claims = database.worker("a", LOW)
    claims.claim()
    store = database.readings(claims)
    await store.store([reading(0), reading(1)])
    await store.store([reading(1)])  # nothing new: nothing to be heard
    await store.store([reading(2)])
    finding = Finding(device_id="ev-1", kind=FlagKind.REPLAYS, since=START, evidence="again")
    pass_on(database.engine, [finding])
    assert take(database.engine, 2) == [
        Passed(readings=[reading(0), reading(1)]), Passed(readings=[reading(2)])
    ]  # fmt: skip
    assert forget_old(database.engine) == 0
    assert take(database.engine, 2) == [Passed(findings=[finding])]
    assert take(database.engine, 2) == []


async def test_the_gateway_knows_what_is_missing_from_what_workers_store(
    database: Database,
) -> None:
    claims = database.worker("a", LOW)
    claims.claim()
    store = database.readings(claims)
    await store.store([reading(0), reading(4)])
    assert missing_in(database.engine) == store.gaps().missing == {"ev-1": 3}
    await store.store([reading(n) for n in (1, 2, 3)])
    assert missing_in(database.engine) == store.gaps().missing == {}
