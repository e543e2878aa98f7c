"""A flipped, dropped, swapped or truncated record is found, whoever rewrote what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, delete, select, update

from gateway.store.journal import GENESIS, read_after, read_heads, record_hash
from gateway.store.roots import RootLog, load_or_create_key, load_public_key, read_roots
from gateway.store.tables import journal, journal_heads
from gateway.store.verify import Verdict, verify_journal
from gateway.store.writer import Transaction, Writer
from marketplace_core.errors import FencedError, StoreError
from marketplace_core.events import OrderRejected, OrderSettled
from marketplace_core.ports import Clock

FACTS = 12


def fact(number: int) -> OrderRejected:
    return OrderRejected(order_id=f"ord_{number % 4}", reason=f"reason {number}")


@pytest.fixture
async def filled(
    engine: Engine, start_writer: Callable[[], Writer], tmp_path: Path, clock: Clock
) -> tuple[Engine, RootLog]:
    writer = start_writer()
    roots = RootLog(tmp_path / "roots.jsonl", load_or_create_key(tmp_path / "key.pem"))
    for number in range(FACTS):
        await writer.transact(lambda tx, n=number: tx.append(f"ord_{n % 4}", fact(n)))
    with engine.connect() as connection:
        roots.write(clock.now(), read_heads(connection))
    return engine, roots


def verdict(engine: Engine, tmp_path: Path) -> Verdict:
    key = load_public_key(tmp_path / "key.pub.pem")
    with engine.connect() as connection:
        return verify_journal(connection, read_roots(tmp_path / "roots.jsonl", key))


def busiest_shard(connection: Connection) -> int:
    heads = read_heads(connection)
    shard = max(heads, key=lambda name: heads[name][0])
    assert heads[shard][0] >= 4
    return shard


def rechain(connection: Connection, shard: int) -> None:
    """What a forger does who can write the database: recompute every hash and the head."""
    previous, last = GENESIS, 0
    query = select(journal).where(journal.c.shard == shard).order_by(journal.c.sequence)
    for row in connection.execute(query).mappings().all():
        fields = {name: row[name] for name in ("shard", "sequence", "at_us", "stream", "payload")}
        digest = record_hash(**fields, previous=previous)
        here = (journal.c.shard == shard) & (journal.c.sequence == row["sequence"])
        connection.execute(update(journal).where(here).values(previous=previous, hash=digest))
        previous, last = digest, row["sequence"]
    head = journal_heads.c.shard == shard
    connection.execute(update(journal_heads).where(head).values(sequence=last, hash=previous))


async def test_untouched_journal_verifies(filled: tuple[Engine, RootLog], tmp_path: Path) -> None:
    found = verdict(filled[0], tmp_path)
    assert found.verified
    assert (found.events, found.roots) == (FACTS, 1)


async def test_flipped_record_is_found(filled: tuple[Engine, RootLog], tmp_path: Path) -> None:
    engine, _ = filled
    with engine.begin() as connection:
        here = (journal.c.shard == busiest_shard(connection)) & (journal.c.sequence == 2)
        payload = bytearray(connection.scalar(select(journal.c.payload).where(here)) or b"")
        payload[len(payload) // 2] ^= 1
        connection.execute(update(journal).where(here).values(payload=bytes(payload)))
    assert [fault.kind for fault in verdict(engine, tmp_path).faults] == ["altered"]


@pytest.mark.parametrize("column", ["at_us", "stream"])
async def test_altered_time_or_stream_is_found(
    filled: tuple[Engine, RootLog], tmp_path: Path, column: str
) -> None:
    engine, _ = filled
    with engine.begin() as connection:
        here = (journal.c.shard == busiest_shard(connection)) & (journal.c.sequence == 2)
        value = 1 if column == "at_us" else "ord_x"
        connection.execute(update(journal).where(here).values({column: value}))
    assert [fault.kind for fault in verdict(engine, tmp_path).faults] == ["altered"]


async def test_dropped_record_is_found(filled: tuple[Engine, RootLog], tmp_path: Path) -> None:
    engine, _ = filled
    with engine.begin() as connection:
        here = (journal.c.shard == busiest_shard(connection)) & (journal.c.sequence == 2)
        connection.execute(delete(journal).where(here))
    assert {"missing", "out_of_order"} <= {f.kind for f in verdict(engine, tmp_path).faults}


async def test_swapped_records_are_found(filled: tuple[Engine, RootLog], tmp_path: Path) -> None:
    engine, _ = filled
    with engine.begin() as connection:
        shard = busiest_shard(connection)
        for old, new in ((2, -1), (3, 2), (-1, 3)):
            here = (journal.c.shard == shard) & (journal.c.sequence == old)
            connection.execute(update(journal).where(here).values(sequence=new))
    assert {"altered", "out_of_order"} <= {f.kind for f in verdict(engine, tmp_path).faults}


async def test_truncated_tail_is_found_by_the_head(
    filled: tuple[Engine, RootLog], tmp_path: Path
) -> None:
    engine, _ = filled
    with engine.begin() as connection:
        shard = busiest_shard(connection)
        connection.execute(delete(journal).where(journal.c.shard == shard, journal.c.sequence > 2))
    assert "truncated" in {fault.kind for fault in verdict(engine, tmp_path).faults}


async def test_truncated_tail_with_forged_head_is_found_by_the_root(
    filled: tuple[Engine, RootLog], tmp_path: Path
) -> None:
    engine, _ = filled
    with engine.begin() as connection:
        shard = busiest_shard(connection)
        connection.execute(delete(journal).where(journal.c.shard == shard, journal.c.sequence > 2))
        rechain(connection, shard)
    faults = verdict(engine, tmp_path).faults
    assert {(fault.kind, fault.shard) for fault in faults} == {("truncated", shard)}


async def test_rewritten_history_is_found_by_the_root(
    filled: tuple[Engine, RootLog], tmp_path: Path
) -> None:
    engine, _ = filled
    with engine.begin() as connection:
        shard = busiest_shard(connection)
        here = (journal.c.shard == shard) & (journal.c.sequence == 2)
        payload = b'{"kind":"OrderRejected","order_id":"ord_0","reason":"forged"}'
        connection.execute(update(journal).where(here).values(payload=payload))
        rechain(connection, shard)
    assert [fault.kind for fault in verdict(engine, tmp_path).faults] == ["rewritten"]


async def test_root_by_another_key_is_refused(
    filled: tuple[Engine, RootLog], tmp_path: Path
) -> None:
    engine, _ = filled
    load_or_create_key(tmp_path / "other.pem")
    key = load_public_key(tmp_path / "other.pub.pem")
    with pytest.raises(StoreError, match="signature"), engine.connect() as connection:
        verify_journal(connection, read_roots(tmp_path / "roots.jsonl", key))


async def test_removed_root_is_found(
    filled: tuple[Engine, RootLog], tmp_path: Path, clock: Clock
) -> None:
    _, roots = filled
    for sequence in (100, 101):
        roots.write(clock.now(), {0: (sequence, bytes(32))})
    path = tmp_path / "roots.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(StoreError, match="missing"):
        list(read_roots(path, load_public_key(tmp_path / "key.pub.pem")))


async def test_root_torn_by_a_crash_is_cut_off(
    filled: tuple[Engine, RootLog], tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "roots.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    again = RootLog(path, load_or_create_key(tmp_path / "key.pem"))
    again.write(clock.now(), {0: (1, bytes(32))})
    assert len(list(read_roots(path, load_public_key(tmp_path / "key.pub.pem")))) == 2


def test_key_file_is_for_its_owner_only(tmp_path: Path) -> None:
    load_or_create_key(tmp_path / "keys" / "journal.pem")
    assert (tmp_path / "keys" / "journal.pem").stat().st_mode & 0o077 == 0


async def test_a_taken_over_writer_is_fenced(start_writer: Callable[[], Writer]) -> None:
    old = start_writer()
    await old.transact(lambda tx: tx.append("ord_1", fact(1)))
    start_writer()
    with pytest.raises(FencedError):
        await old.transact(lambda tx: tx.append("ord_1", fact(2)))


async def test_a_failed_unit_leaves_no_trace_and_its_neighbours_commit(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    writer = start_writer()

    def broken(transaction: Transaction) -> None:
        transaction.append("ord_1", fact(1))
        raise ValueError("after the append")

    with pytest.raises(ValueError, match="after the append"):
        await writer.transact(broken)
    await writer.transact(lambda tx: tx.append("ord_1", fact(2)))
    with engine.connect() as connection:
        facts = [record.fact for record in read_after(connection, {}, 10)]
    assert facts == [fact(2)]


async def test_a_stage_cannot_emit_what_is_not_its_own(start_writer: Callable[[], Writer]) -> None:
    writer = start_writer()
    with pytest.raises(StoreError, match="not for this stage"):
        await writer.transact(
            lambda tx: tx.append("ord_1", fact(1)), emits=frozenset({OrderSettled})
        )
