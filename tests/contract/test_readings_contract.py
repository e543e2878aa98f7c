"""The readings store: the same promises on a SQLite file and in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from gateway.store import readings_postgres
from gateway.store.engine import open_engine, to_us
from gateway.store.readings import Gaps, Quarantined, Readings
from gateway.store.readings_postgres import PostgresReadings
from gateway.store.readings_sqlite import SqliteReadings
from marketplace_core.errors import StoreError
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading
from tests.harness.servers import PASSWORD, PostgresServer

pytestmark = [pytest.mark.process]
START = datetime(2017, 7, 20, 23, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
OpenReadings = Callable[[], Readings]


def reading(number: int, *, series: str = "ev-1", boot: int = 1, sequence: int = -1) -> Reading:
    start = START + timedelta(minutes=number)
    return Reading(
        series=series, start=start, seconds=60.0, power_kw=Kw(-number), boot=boot,
        sequence=sequence,
    )  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["threaded", "inline"])
def open_readings(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[OpenReadings]:
    inline = request.param == "inline"
    opened: list[Readings] = []
    engines: list[Engine] = []
    url = ""
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_server").database()

    def start() -> Readings:
        readings: Readings
        if kind == "sqlite":
            readings = SqliteReadings(tmp_path / "readings.db", inline=inline)
        else:
            engines.append(open_engine(url, password=PASSWORD, patience_s=0.0))
            readings = PostgresReadings(engines[-1], inline=inline)
        readings.start()
        opened.append(readings)
        return readings

    yield start
    for readings in opened:
        readings.stop()
    for engine in engines:
        engine.dispose()


async def test_duplicates_by_device_boot_and_sequence_vanish(open_readings: OpenReadings) -> None:
    store = open_readings()
    first = [reading(n, sequence=n) for n in range(5)]
    assert await store.store(first) == first
    moved = [reading(9, sequence=3)]  # replayed under another time stamp
    assert await store.store(first + moved) == []
    assert store.between("ev-1", START, START + HOUR).power_kw.tolist() == [0, -1, -2, -3, -4]


async def test_duplicates_within_a_batch_and_between_waiting_batches_vanish(
    open_readings: OpenReadings,
) -> None:
    store = open_readings()
    same = [reading(0, sequence=0), reading(1, sequence=1)]
    fresh = await asyncio.gather(*(store.store([*same, *same]) for _ in range(10)))
    assert [found for batch in fresh for found in batch] == same


async def test_duplicates_vanish_across_a_restart(open_readings: OpenReadings) -> None:
    first = [reading(n, sequence=n) for n in range(5)]
    store = open_readings()
    await store.store(first)
    store.stop()
    again = open_readings()
    moved = [reading(30, sequence=2)]
    assert await again.store([*first, *moved, reading(5, sequence=5)]) == [reading(5, sequence=5)]


async def test_a_new_boot_counts_from_zero(open_readings: OpenReadings) -> None:
    store = open_readings()
    await store.store([reading(0, sequence=0)])
    rebooted = [reading(1, boot=2, sequence=0)]
    assert await store.store(rebooted) == rebooted


async def test_readings_without_a_sequence_are_kept_once_per_start(
    open_readings: OpenReadings,
) -> None:
    store = open_readings()
    await store.store([reading(1), reading(2)])
    await store.store([reading(1), reading(3)])
    assert store.between("ev-1", START, START + HOUR).power_kw.tolist() == [-1, -2, -3]


async def test_what_was_skipped_is_missing_until_it_comes_however_late(
    open_readings: OpenReadings,
) -> None:
    store = open_readings()
    await store.store([reading(0, sequence=0), reading(0, series="other", sequence=0)])
    await store.store([reading(n, sequence=n) for n in range(3, 5_003)])
    assert store.gaps() == Gaps(missing={"ev-1": 2}, opened=2, closed=0)
    late = [reading(1, sequence=1)]
    assert await store.store(late) == late
    assert store.gaps() == Gaps(missing={"ev-1": 1}, opened=2, closed=1)
    assert await store.store(late) == []
    store.stop()
    again = open_readings()
    assert await again.store([reading(5, sequence=5)]) == []
    assert again.gaps() == Gaps(missing={"ev-1": 1}, opened=0, closed=0)
    late = [reading(2, sequence=2)]
    assert await again.store(late) == late
    assert again.gaps() == Gaps(missing={}, opened=0, closed=1)
    span = again.between("ev-1", START, START + timedelta(minutes=4))
    assert span.start_s.tolist() == [reading(n).start.timestamp() for n in range(4)]


async def test_between_includes_a_span_that_began_before(open_readings: OpenReadings) -> None:
    store = open_readings()
    long = Reading(series="m", start=START, seconds=3600.0, power_kw=Kw(-2.0))
    await store.store([long, reading(45, series="other")])
    found = store.between("m", START + HOUR / 2, START + HOUR * 3 / 4)
    assert found.seconds.tolist() == [3600.0]
    assert found.start_s.tolist() == [START.timestamp()]
    assert len(store.between("m", START + HOUR, START + 2 * HOUR).seconds) == 0
    assert len(store.between("m", START - HOUR, START).seconds) == 0


async def test_what_is_stored_is_told_from_what_is_not(open_readings: OpenReadings) -> None:
    store = open_readings()
    await store.store([reading(0), reading(1), reading(2, series="ev-2")])
    keys = [("ev-1", reading(n).start) for n in range(4)] + [("ev-3", reading(0).start)]
    assert store.stored(keys) == set(keys[:2])
    assert store.stored([]) == set()


async def test_a_series_that_nobody_knows_is_empty(open_readings: OpenReadings) -> None:
    found = open_readings().between("nobody", START, START + HOUR)
    assert (found.start_s.shape, found.seconds.shape, found.power_kw.shape) == ((0,), (0,), (0,))


async def test_latest_is_the_newest_of_every_series_with_all_its_fields(
    open_readings: OpenReadings,
) -> None:
    store = open_readings()
    assert store.latest() == []
    whole = Reading(
        series="b", start=START + HOUR, seconds=0.1, power_kw=Kw(1 / 3), soc_kwh=2.5,
        available=False, sample_kw=Kw(-1e-9),
    )  # fmt: skip
    await store.store([*(reading(n, series=s) for s in ("b", "a") for n in (3, 1, 2)), whole])
    assert store.latest() == [reading(3, series="a", boot=0), whole]


async def test_instants_are_exact_to_the_microsecond(open_readings: OpenReadings) -> None:
    store = open_readings()
    odd = START + timedelta(microseconds=1)
    await store.store([Reading(series="m", start=odd, seconds=1.0, power_kw=Kw(1.0))])
    assert store.latest()[0].start == odd


async def test_quarantined_messages_are_kept_newest_first_and_cut_to_size(
    open_readings: OpenReadings,
) -> None:
    store = open_readings()
    evidence = bytes(range(256)) * 40
    for source in ("first", "with a \0 in it"):
        message = Quarantined(at=START, source=source, reason="not MessagePack", evidence=evidence)
        await store.quarantine(message)
    newest, first = store.quarantined()
    assert newest.source.startswith("with a ")
    assert (first.at, first.source, first.reason) == (START, "first", "not MessagePack")
    assert first.evidence == evidence[:4096]
    assert len(store.quarantined(limit=1)) == 1


async def test_what_is_no_number_is_refused_and_the_rest_goes_on(
    open_readings: OpenReadings,
) -> None:
    store = open_readings()
    broken = Reading(series="m", start=START, seconds=1.0, power_kw=Kw(float("nan")))
    with pytest.raises(StoreError, match="nan kW"):
        await store.store([broken])
    assert await store.store([reading(1)]) == [reading(1)]


async def test_many_batches_at_once_are_all_stored_and_each_learns_its_own(
    open_readings: OpenReadings,
) -> None:
    store = open_readings()
    batches = [[reading(n, series=f"s-{n % 7}", sequence=n // 7)] for n in range(1400)]
    fresh = await asyncio.gather(*map(store.store, batches))
    assert fresh == batches
    until = START + timedelta(days=2)
    counts = [len(store.between(f"s-{s}", START, until).seconds) for s in range(7)]
    assert counts == [200] * 7


async def test_a_stopped_store_refuses_and_does_not_hang(open_readings: OpenReadings) -> None:
    store = open_readings()
    await store.store([reading(1)])
    store.stop()
    with pytest.raises(StoreError, match="stopping"):
        await store.store([reading(2)])


async def test_two_processes_share_the_numbers_of_series(open_readings: OpenReadings) -> None:
    one, other = open_readings(), open_readings()
    await one.store([reading(1, series="a")])
    await other.store([reading(2, series="b"), reading(2, series="a")])
    await one.store([reading(3, series="c"), reading(3, series="b")])
    for series, expected in (("a", [-1, -2]), ("b", [-2, -3]), ("c", [-3])):
        assert one.between(series, START, START + HOUR).power_kw.tolist() == expected


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_commit_that_fails_is_reported_and_forgotten(
    open_readings: OpenReadings, tmp_path: Path
) -> None:
    """The table is taken away under a running store, then comes back."""
    import sqlite3  # noqa: PLC0415 - this test alone looks inside the file

    store = open_readings()
    await store.store([reading(0, sequence=0)])
    with sqlite3.connect(tmp_path / "readings.db") as connection:
        connection.execute("ALTER TABLE marks RENAME TO gone")
    connection.close()
    with pytest.raises(StoreError, match="could not be stored"):
        await store.store([reading(1, sequence=1), reading(4, sequence=4)])
    with sqlite3.connect(tmp_path / "readings.db") as connection:
        connection.execute("ALTER TABLE gone RENAME TO marks")
    connection.close()
    both = [reading(0, sequence=0), reading(1, sequence=1)]
    assert await store.store(both) == both[1:]
    assert store.gaps() == Gaps(missing={}, opened=0, closed=0)


async def test_what_an_import_looks_up_is_read_by_the_key(postgres_server: PostgresServer) -> None:
    """Found with a day's history: right after many rows the planner knows nothing of them, and
    read the whole table for every batch.
    """
    engine = open_engine(postgres_server.database(), password=PASSWORD, patience_s=0.0)
    readings = PostgresReadings(engine, inline=True)
    readings.start()
    await readings.store([reading(number) for number in range(20_000)])
    keys = [("ev-1", reading(number).start) for number in range(2_000)]
    arguments = ([to_us(start) for _, start in keys], [series for series, _ in keys])
    with engine.connect() as connection:
        found = connection.exec_driver_sql(f"EXPLAIN {readings_postgres.STORED}", arguments)
        plan = "\n".join(line for (line,) in found)
    assert "Seq Scan on readings" not in plan
    assert "readings_pkey" in plan
    assert readings.stored(keys) == set(keys)
    readings.stop()
