"""Readings stored and records carried, beside the bare drivers doing the same.

Readings: our store on SQLite and on PostgreSQL (duplicates found, marks kept, a commit per
group) beside `executemany` and bare COPY of the same rows in the same number of commits,
into the same table. Bus: records of a commit packed into one entry beside one record per
entry, both written by pipeline and read back by a consumer group.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import uvloop

from gateway.bus.client import open_redis
from gateway.bus.packing import pack, unpack
from gateway.store.engine import open_engine, to_us
from gateway.store.readings import Readings
from gateway.store.readings_postgres import PostgresReadings
from gateway.store.readings_sqlite import SqliteReadings
from marketplace_core.events import OrderRejected
from marketplace_core.ports import Record
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading
from tests.harness.servers import PASSWORD, PostgresServer, RedisServer, postgres, redis

DEVICES = 1_000
BATCH = 1_000
BATCHES = 100
RECORDS = 20_000
COMMIT = 100
_START = datetime(2026, 1, 1, tzinfo=UTC)
_KEY = b"bench"
_LIMITS = {"most_records": 1_000, "most_bytes": 4 * 1024 * 1024}


def run(runs: int) -> list[dict[str, Any]]:
    """Median rates of `runs` rounds each, ours and the reference in turn."""
    batches = [
        [_reading(number) for number in range(first, first + BATCH)]
        for first in range(0, BATCH * BATCHES, BATCH)
    ]
    with postgres() as server, redis() as streams, tempfile.TemporaryDirectory() as name:
        pairs: dict[str, tuple[Callable[[int], float], Callable[[int], float]]] = {
            "readings_sqlite": (
                lambda n: _store(SqliteReadings(Path(name) / f"ours-{n}.db"), batches),
                lambda n: _executemany(Path(name) / f"bare-{n}.db", batches),
            ),
            "readings_postgresql": (
                lambda _: _store_postgres(server, batches), lambda _: _copy(server, batches),
            ),
            "bus_redis_packed": (
                lambda n: _carry(streams, f"packed-{n}", COMMIT),
                lambda n: _carry(streams, f"single-{n}", 1),
            ),
        }  # fmt: skip
        return [_compare(label, ours, bare, runs) for label, (ours, bare) in pairs.items()]


def _compare(
    name: str, ours: Callable[[int], float], bare: Callable[[int], float], runs: int
) -> dict[str, Any]:
    found = [(ours(number), bare(number)) for number in range(runs)]
    middle, beside = (statistics.median(rates) for rates in zip(*found, strict=True))
    unit = "records/s" if name.startswith("bus") else "readings/s"
    return {"name": name, "ours": middle, "reference": beside, "ratio": middle / beside,
            "unit": unit, "runs": runs}  # fmt: skip


def _reading(number: int) -> Reading:
    """The n-th reading of a fleet that reports once a minute."""
    minute, device = divmod(number, DEVICES)
    return Reading(
        series=f"dev-{device}", start=_START + timedelta(minutes=minute), seconds=60.0,
        power_kw=Kw(-number / 7), boot=1, sequence=minute, soc_kwh=number / 3,
    )  # fmt: skip


def _rows(batch: list[Reading]) -> list[tuple[Any, ...]]:
    return [
        (to_us(r.start), int(r.series[4:]), r.seconds, r.power_kw, r.soc_kwh, r.available,
         r.sample_kw)
        for r in batch
    ]  # fmt: skip


def _store(readings: Readings, batches: list[list[Reading]]) -> float:
    async def fill() -> float:
        readings.start()
        began = time.perf_counter()
        for batch in batches:
            assert len(await readings.store(batch)) == BATCH
        elapsed = time.perf_counter() - began
        readings.stop()
        return BATCH * BATCHES / elapsed

    return _run(fill())


def _executemany(path: Path, batches: list[list[Reading]]) -> float:
    prepared = [_rows(batch) for batch in batches]
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE readings (at_us INTEGER, series INTEGER, seconds REAL,"
                       " power_kw REAL, soc_kwh REAL, available INTEGER, sample_kw REAL,"
                       " PRIMARY KEY (at_us, series)) WITHOUT ROWID")  # fmt: skip
    began = time.perf_counter()
    for rows in prepared:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    elapsed = time.perf_counter() - began
    connection.close()
    return BATCH * BATCHES / elapsed


def _store_postgres(server: PostgresServer, batches: list[list[Reading]]) -> float:
    engine = open_engine(server.database(), password=PASSWORD)
    return _store(PostgresReadings(engine), batches)


def _copy(server: PostgresServer, batches: list[list[Reading]]) -> float:
    prepared = [_rows(batch) for batch in batches]
    with psycopg.connect(server.database(), password=PASSWORD) as connection:
        connection.execute("CREATE TABLE readings (at_us bigint, series integer, seconds float8,"
                           " power_kw float8, soc_kwh float8, available boolean,"
                           " sample_kw float8, PRIMARY KEY (series, at_us))")  # fmt: skip
        connection.commit()
        began = time.perf_counter()
        for rows in prepared:
            with connection.cursor().copy("COPY readings FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "int4", "float8", "float8", "float8", "bool", "float8"])
                for row in rows:
                    copy.write_row(row)
            connection.commit()
        elapsed = time.perf_counter() - began
    return BATCH * BATCHES / elapsed


def _record(number: int) -> Record:
    fact = OrderRejected(order_id=f"ord_{number}", reason="no contract can serve the order")
    return Record(shard=0, sequence=number + 1, at=_START, stream=fact.order_id, fact=fact)


def _carry(server: RedisServer, stream: str, count: int) -> float:
    """Pack, write by pipelines of about a thousand records, read by a group, unpack."""
    records = [_record(number) for number in range(RECORDS)]

    async def carry() -> float:
        async with open_redis(server.url, password=PASSWORD, timeout_s=10.0) as client:
            await client.xgroup_create(stream, "award", id="$", mkstream=True)
            began = time.perf_counter()
            for first in range(0, RECORDS, 1000):
                async with client.pipeline(transaction=False) as pipeline:
                    for at in range(first, first + 1000, count):
                        for entry in pack(records[at : at + count], _KEY, **_LIMITS):
                            pipeline.xadd(stream, {b"p": entry})
                    await pipeline.execute()
            taken = 0
            while taken < RECORDS:
                answer: Any = await client.xreadgroup("award", "one", {stream: ">"}, count=1000)
                ids = [entry_id for entry_id, _ in answer[0][1]]
                taken += sum(len(unpack(fields[b"p"], _KEY) or ()) for _, fields in answer[0][1])
                await client.xack(stream, "award", *ids)
            return RECORDS / (time.perf_counter() - began)

    return _run(carry())


def _run(work: Coroutine[Any, Any, float]) -> float:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
