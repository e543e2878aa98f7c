"""Carries committed facts to the stages, each exactly once inside the database.

A stage handles a fact in one transaction with its own cursor, so a crash between
any two commits repeats nothing and loses nothing: recovery is reading on from the
cursor. A fact that a stage cannot handle goes to `dead_letters`, is counted, and
the rest goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Final, Protocol

import structlog
from sqlalchemy import Connection, Engine, insert, select, update

from gateway.observability.metrics import Metrics
from gateway.store.engine import run_read
from gateway.store.journal import read_after
from gateway.store.tables import cursors, dead_letters
from gateway.store.writer import Transaction, Writer
from marketplace_core.errors import StoreError
from marketplace_core.ports import Bus, Record, Subscription

_READ_AHEAD: Final = 500
"""Records per shard that a stage reads from the journal at once when catching up."""
_log = structlog.get_logger(__name__)


class Stage(Protocol):
    """One stage of the street."""

    @property
    def name(self) -> str:
        """Names its cursor."""

    @property
    def consumes(self) -> Collection[type[Any]]:
        """Facts it takes from its left."""

    @property
    def emits(self) -> Collection[type[Any]]:
        """Facts it gives to its right."""

    def handle(self, record: Record, transaction: Transaction) -> None:
        """Turn one fact into state and facts. Pure but for the transaction; may be retried."""


class Carrier:
    """Feeds one stage: journal first, then the bus."""

    def __init__(
        self,
        stage: Stage,
        *,
        engine: Engine,
        writer: Writer,
        bus: Bus,
        metrics: Metrics,
        after: Callable[[], Awaitable[None]] | None = None,
        inline: bool = False,
    ) -> None:
        """`after` is awaited before the first fact is carried.

        Inline, the journal is read in this coroutine rather than on a thread.
        """
        self._stage = stage
        self._after = after
        self._inline = inline
        self._engine = engine
        self._writer = writer
        self._metrics = metrics
        self._subscription: Subscription = bus.subscribe(stage.name)
        self._seen: dict[int, int] = {}

    async def run(self) -> None:
        """Carry facts until cancelled."""
        if self._after is not None:
            await self._after()
        self._seen = run_read(self._engine, self._cursors)
        await self._catch_up()
        while True:
            records = await self._subscription.take()
            if records is None or not self._contiguous(records):
                await self._catch_up()
            else:
                await self._carry(records)
            self._subscription.acknowledge()

    def _cursors(self, connection: Connection) -> dict[int, int]:
        query = select(cursors).where(cursors.c.stage == self._stage.name)
        return {row.shard: row.sequence for row in connection.execute(query)}

    async def _catch_up(self) -> None:
        while records := await self._read_journal():
            await self._carry(records)

    async def _read_journal(self) -> list[Record]:
        def read(connection: Connection) -> list[Record]:
            return list(read_after(connection, self._seen, _READ_AHEAD))

        if self._inline:
            return run_read(self._engine, read)
        # A server may be waited for: the loop must turn meanwhile.
        return await asyncio.to_thread(run_read, self._engine, read)

    def _contiguous(self, records: Iterable[Record]) -> bool:
        seen = dict(self._seen)
        for record in records:
            if record.sequence > seen.get(record.shard, 0) + 1:
                return False
            seen[record.shard] = max(record.sequence, seen.get(record.shard, 0))
        return True

    def _fresh(self, records: Iterable[Record]) -> list[Record]:
        """Records this stage has not seen, each once: a bus may bring one again and again."""
        seen, fresh = dict(self._seen), list[Record]()
        for record in records:
            if record.sequence > seen.get(record.shard, 0):
                seen[record.shard] = record.sequence
                fresh.append(record)
        return fresh

    async def _carry(self, records: Iterable[Record]) -> None:
        fresh = self._fresh(records)
        wanted = [r for r in fresh if type(r.fact) in self._stage.consumes]
        try:
            if wanted:
                await self._transact(wanted)
        except StoreError:
            raise
        except Exception:  # noqa: BLE001 - one of them is poison: find it, let the rest go on
            for record in wanted:
                await self._carry_alone(record)
        for record in fresh:
            self._seen[record.shard] = record.sequence

    async def _carry_alone(self, record: Record) -> None:
        try:
            await self._transact([record])
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - quarantined, counted and shown
            _log.exception("dead_letter", stage=self._stage.name, order_id=record.stream)
            self._metrics.dead_letters.labels(stage=self._stage.name).inc()
            message = f"{type(error).__name__}: {error}".replace("\0", "\\0")  # no text in SQL
            await self._writer.transact(lambda tx: self._bury(tx.connection, record, message))

    async def _transact(self, records: list[Record]) -> None:
        def work(transaction: Transaction) -> None:
            for record in records:
                self._stage.handle(record, transaction)
                _move(transaction.connection, self._stage.name, record)

        await self._writer.transact(work, emits=self._stage.emits)

    def _bury(self, connection: Connection, record: Record, message: str) -> None:
        row = {"stage": self._stage.name, "shard": record.shard, "sequence": record.sequence}
        connection.execute(insert(dead_letters).values(**row, error=message))
        _move(connection, self._stage.name, record)


def _move(connection: Connection, stage: str, record: Record) -> None:
    moved = connection.execute(
        update(cursors)
        .where(cursors.c.stage == stage, cursors.c.shard == record.shard)
        .values(sequence=record.sequence)
    )
    if moved.rowcount == 0:
        row = {"stage": stage, "shard": record.shard, "sequence": record.sequence}
        connection.execute(insert(cursors).values(row))
