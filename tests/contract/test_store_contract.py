"""The market database: the same writer, journal and migrations on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import delete, func, insert, select, update

from gateway.store.engine import migrate, snapshot
from gateway.store.journal import Journal, read_after, read_heads, read_streams
from gateway.store.market import devices_of
from gateway.store.registry import every_asset, save_assets
from gateway.store.roots import RootLog, load_or_create_key, load_public_key, read_roots
from gateway.store.tables import dead_letters, idempotency, journal, journal_heads, metadata
from gateway.store.verify import verify_journal
from gateway.store.viewer import Viewer
from gateway.store.writer import Transaction, Writer
from marketplace_core.errors import FencedError, StoreError
from marketplace_core.events import OrderRejected
from marketplace_core.ports import Record
from marketplace_core.registry.asset import Asset
from tests.contract.conftest import Database
from tests.harness.clocks import SteppingClock

pytestmark = [pytest.mark.process]
SHARDS = 2


class StartWriter(Protocol):
    def __call__(
        self, publish: Callable[[list[Record]], None] = ..., *, database: Database | None = ...
    ) -> Writer: ...


@pytest.fixture(params=["threaded", "inline"])
def inline(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "inline")


@pytest.fixture
def start_writer(
    database: Database, clock: SteppingClock, *, inline: bool
) -> Iterator[StartWriter]:
    here = database
    started: list[Writer] = []

    def start(
        publish: Callable[[list[Record]], None] = lambda _: None, *,
        database: Database | None = None,
    ) -> Writer:  # fmt: skip
        engine = (database or here).open()
        migrate(engine)
        writer = Writer(engine, Journal(clock, SHARDS), publish, inline=inline)
        writer.start()
        started.append(writer)
        return writer

    yield start
    for writer in started:
        writer.stop()


def fact(number: int) -> OrderRejected:
    return OrderRejected(order_id=f"ord_{number % 4}", reason=f"reason {number}: 5 €")


def append(number: int) -> Callable[[Transaction], Record]:
    return lambda transaction: transaction.append(f"ord_{number % 4}", fact(number))


def letter(sequence: int, error: str = "e") -> Callable[[Transaction], None]:
    row = {"stage": "award", "shard": 0, "sequence": sequence, "error": error}
    return lambda transaction: _execute(transaction, row)


def _execute(transaction: Transaction, row: dict[str, object]) -> None:
    transaction.connection.execute(insert(dead_letters).values(row))


def facts_in(database: Database) -> list[Record]:
    with database.open().connect() as connection:
        return list(read_after(connection, {}, 10_000))


async def test_a_result_comes_after_its_commit_and_records_are_published_in_order(
    database: Database, start_writer: StartWriter
) -> None:
    published: list[Record] = []
    seen_committed: list[bool] = []

    def publish(records: list[Record]) -> None:
        stored = facts_in(database)
        seen_committed.append(all(record in stored for record in records))
        published.extend(records)

    writer = start_writer(publish)
    returned = await asyncio.gather(*(writer.transact(append(n)) for n in range(20)))
    assert all(seen_committed)
    assert published == returned
    by_shard = {s: [r.sequence for r in published if r.shard == s] for s in range(SHARDS)}
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_shard.values())
    assert {record.fact for record in facts_in(database)} == {fact(n) for n in range(20)}


async def test_a_unit_that_fails_leaves_no_trace_and_its_neighbours_commit(
    database: Database, start_writer: StartWriter
) -> None:
    writer = start_writer()

    def broken(transaction: Transaction) -> None:
        append(1)(transaction)
        raise ValueError("after the append")

    outcomes = await asyncio.gather(
        writer.transact(append(0)), writer.transact(broken), writer.transact(append(2)),
        return_exceptions=True,
    )  # fmt: skip
    assert isinstance(outcomes[1], ValueError)
    assert {record.fact for record in facts_in(database)} == {fact(0), fact(2)}


async def test_an_error_of_the_database_harms_its_own_unit_only(
    database: Database, start_writer: StartWriter
) -> None:
    writer = start_writer()
    await writer.transact(letter(1))

    def twice(transaction: Transaction) -> None:
        append(1)(transaction)
        letter(1)(transaction)

    outcomes = await asyncio.gather(
        writer.transact(append(0)), writer.transact(twice), writer.transact(append(2)),
        return_exceptions=True,
    )  # fmt: skip
    assert "IntegrityError" in repr(outcomes[1])
    assert {record.fact for record in facts_in(database)} == {fact(0), fact(2)}


async def test_a_taken_over_writer_writes_nothing_any_more(
    database: Database, start_writer: StartWriter
) -> None:
    old = start_writer()
    await old.transact(append(0))
    new = start_writer()
    for refused in (append(1), letter(7)):
        with pytest.raises(FencedError):
            await old.transact(refused)
    await new.transact(append(2))
    with pytest.raises(FencedError):
        await old.transact(append(3))
    assert [record.fact for record in facts_in(database)] == [fact(0), fact(2)]
    with database.open().connect() as connection:
        assert connection.scalar(select(func.count()).select_from(dead_letters)) == 0
        assert verify_journal(connection, []).verified


async def test_a_shard_that_was_taken_over_alone_refuses_the_append_and_keeps_nothing(
    database: Database, start_writer: StartWriter
) -> None:
    writer = start_writer()
    await writer.transact(append(0))
    with database.open().begin() as connection:
        connection.execute(update(journal_heads).where(journal_heads.c.shard == 1).values(epoch=99))

    def all_shards(transaction: Transaction) -> None:
        for number in range(4):
            append(number)(transaction)

    with pytest.raises(FencedError):
        await writer.transact(all_shards)
    assert [record.fact for record in facts_in(database)] == [fact(0)]


async def test_a_claim_waits_for_the_transaction_that_is_open(
    database: Database, clock: SteppingClock
) -> None:
    old = Writer(database.open(), Journal(clock, SHARDS), lambda _: None)
    new = Writer(database.open(), Journal(clock, SHARDS), lambda _: None)
    migrate(database.open())
    old.start()
    begun, go_on = threading.Event(), threading.Event()

    def slow(transaction: Transaction) -> None:
        append(0)(transaction)
        begun.set()
        assert go_on.wait(20)

    writing = asyncio.ensure_future(old.transact(slow))
    await asyncio.to_thread(begun.wait, 20)
    claiming = asyncio.ensure_future(asyncio.to_thread(new.start))
    done, _ = await asyncio.wait([claiming], timeout=0.3)
    assert not done
    go_on.set()
    await asyncio.gather(writing, claiming)
    with pytest.raises(FencedError):
        await old.transact(append(1))
    await new.transact(append(2))
    assert [record.fact for record in facts_in(database)] == [fact(0), fact(2)]
    old.stop()
    new.stop()


async def test_of_many_that_claim_at_once_one_may_write(
    database: Database, clock: SteppingClock
) -> None:
    migrate(database.open())
    writers = [Writer(database.open(), Journal(clock, SHARDS), lambda _: None) for _ in range(5)]
    writers[0].start()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(Writer.start, writers[1:]))
    outcomes = await asyncio.gather(
        *(writer.transact(append(0)) for writer in writers), return_exceptions=True
    )
    for writer in writers:
        writer.stop()
    assert sum(isinstance(outcome, Record) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, FencedError) for outcome in outcomes) == 4


async def test_another_number_of_shards_is_refused(
    database: Database, start_writer: StartWriter, clock: SteppingClock
) -> None:
    start_writer()
    writer = Writer(database.open(), Journal(clock, SHARDS + 1), lambda _: None)
    with pytest.raises(StoreError, match=f"set store.journal_shards = {SHARDS}"):
        writer.start()


async def test_a_stopped_writer_refuses_and_does_not_hang(start_writer: StartWriter) -> None:
    writer = start_writer()
    await writer.transact(append(0))
    writer.stop()
    with pytest.raises(StoreError, match="stopping"):
        await writer.transact(append(1))


async def test_callbacks_come_after_the_commit_and_not_after_a_failure(
    start_writer: StartWriter,
) -> None:
    writer, called = start_writer(), list[str]()

    def work(name: str, *, fails: bool) -> Callable[[Transaction], None]:
        def unit(transaction: Transaction) -> None:
            transaction.after_commit.append(lambda: called.append(name))
            if fails:
                raise ValueError(name)

        return unit

    await asyncio.gather(
        *(writer.transact(work(name, fails=name == "b")) for name in "abc"), return_exceptions=True
    )
    assert called == ["a", "c"]


async def test_verification_sees_what_was_altered_and_what_was_cut_off(
    database: Database, start_writer: StartWriter, tmp_path: Path, clock: SteppingClock
) -> None:
    writer, engine = start_writer(), database.open()
    for number in range(12):
        await writer.transact(append(number))
    roots = RootLog(tmp_path / "roots.jsonl", load_or_create_key(tmp_path / "key.pem"))
    with engine.connect() as connection:
        roots.write(clock.now(), read_heads(connection))

    def faults() -> set[str]:
        key = load_public_key(tmp_path / "key.pub.pem")
        with snapshot(engine) as connection:
            verdict = verify_journal(connection, read_roots(tmp_path / "roots.jsonl", key))
        return {fault.kind for fault in verdict.faults}

    assert faults() == set()
    last = max(facts_in(database), key=lambda record: record.sequence)
    here = (journal.c.shard == last.shard) & (journal.c.sequence == last.sequence)
    with engine.begin() as connection:
        payload = bytearray(connection.scalar(select(journal.c.payload).where(here)) or b"")
        payload[-10] ^= 1
        connection.execute(update(journal).where(here).values(payload=bytes(payload)))
    assert faults() == {"altered"}
    with engine.begin() as connection:
        connection.execute(delete(journal).where(here))
    assert "truncated" in faults()


async def test_a_journal_that_is_being_written_verifies(
    database: Database, clock: SteppingClock
) -> None:
    engine = database.open()
    migrate(engine)
    writer = Writer(engine, Journal(clock, SHARDS), lambda _: None)
    writer.start()

    def verify() -> bool:
        with snapshot(engine) as connection:
            return verify_journal(connection, []).verified

    async def write() -> None:
        for number in range(150):
            await writer.transact(append(number))

    await asyncio.gather(*(writer.transact(append(n)) for n in range(500)))
    writing, verdicts = asyncio.ensure_future(write()), list[bool]()
    while not writing.done():
        verdicts.append(await asyncio.to_thread(verify))
    await writing
    assert len(verdicts) > 2
    assert all(verdicts)
    writer.stop()


async def test_the_same_work_gives_the_same_journal_on_both(
    make_database: Callable[[str], Database],
) -> None:
    found = set()
    for kind in ("sqlite", "postgresql"):
        engine = make_database(kind).open()
        migrate(engine)
        writer = Writer(engine, Journal(SteppingClock(), SHARDS), lambda _: None, inline=True)
        writer.start()
        for number in range(30):
            await writer.transact(append(number))
        with engine.connect() as connection:
            verdict = verify_journal(connection, [])
            streams = [r.fact for r in read_streams(connection, ["ord_0", "ord_3"])]
        assert verdict.verified
        found.add((verdict.events, verdict.head_hash, tuple(streams)))
        writer.stop()
    assert len(found) == 1


async def test_ids_sort_by_their_bytes_whatever_the_language_of_the_server(
    database: Database, start_writer: StartWriter
) -> None:
    names = ["ast-b", "ast-A", "ast_a", "AST-c", "ast-a", "ast.9", "ast-B"]
    made = [
        Asset(id=name, organisation="org_s", feeder="F-1", technology="battery",
              devices=(f"d-{name}",), meter=f"m-{name}", measurement_point="site_net",
              up_kw=5.0)
        for name in names
    ]  # fmt: skip
    await start_writer().transact(lambda tx: save_assets(tx.connection, made))
    with database.open().connect() as connection:
        assert [asset.id for asset in every_asset(connection, Viewer("org_s"))] == sorted(names)


async def test_text_comes_back_as_it_went_in(database: Database, start_writer: StartWriter) -> None:
    texts = ["", "'; DROP TABLE journal --", "naïve ünïcode €", "a\nb\tc", "😀 %s :x %(y)s"]
    writer = start_writer()
    for number, text in enumerate(texts):
        await writer.transact(letter(number, text))
    with database.open().connect() as connection:
        query = select(dead_letters.c.error).order_by(dead_letters.c.sequence)
        assert list(connection.scalars(query)) == texts


async def test_the_migrations_make_the_tables_that_the_code_declares(database: Database) -> None:
    with ThreadPoolExecutor(3) as threads:
        engines = [database.open() for _ in range(3 if "postgresql" in database.url else 1)]
        list(threads.map(migrate, engines))
    migrate(engines[0])
    with engines[0].connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
        assert connection.scalar(select(func.count()).select_from(idempotency)) == 0


async def test_any_number_of_keys_is_looked_up_at_once(
    database: Database, start_writer: StartWriter
) -> None:
    """SQLite takes 32,766 parameters in a statement: a contract may have more assets."""
    names = [f"ast-{number:05d}" for number in range(40_000)]
    some = [
        Asset(id=name, organisation="org_s", feeder="F-1", technology="battery",
              devices=(f"dev-{name}",), meter=f"m-{name}", measurement_point="site_net", up_kw=5.0)
        for name in names[::4_000]
    ]  # fmt: skip
    writer = start_writer()
    await writer.transact(lambda tx: save_assets(tx.connection, some))
    with database.open().connect() as connection:
        assert devices_of(connection, names) == [f"dev-{each.id}" for each in some]
        assert devices_of(connection, ["'); --", "\\", '"']) == []
