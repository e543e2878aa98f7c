"""One writer thread with group commit.

Every unit of work runs in its own SAVEPOINT; all that wait share one COMMIT. A unit
sees its result only after that commit, so whoever awaits it may acknowledge.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Collection
from typing import Any, Final, Generic, TypeVar

import structlog
from sqlalchemy import Connection, Engine

from gateway.store.journal import Journal
from marketplace_core.errors import StoreError
from marketplace_core.events import Fact
from marketplace_core.ports import Record

T = TypeVar("T")
_GROUP: Final = 256
"""Most units of work that share one commit."""
_log = structlog.get_logger(__name__)


class Transaction:
    """What one unit of work may do: use the connection, append facts."""

    def __init__(
        self, connection: Connection, journal: Journal, emits: Collection[type[Any]] | None
    ) -> None:
        """`emits` are the facts that may be appended; None allows all."""
        self.connection = connection
        self.records: list[Record] = []
        self.after_commit: list[Callable[[], None]] = []
        """Called on the event loop once the unit of work is committed."""
        self._journal = journal
        self._emits = emits

    def append(self, stream: str, fact: Fact) -> Record:
        """Journal a fact of this unit of work; StoreError when its stage may not emit it."""
        if self._emits is not None and type(fact) not in self._emits:
            raise StoreError(f"{type(fact).__name__} is not for this stage to emit")
        record = self._journal.append(self.connection, stream, fact)
        self.records.append(record)
        return record


class _Unit(Generic[T]):
    def __init__(
        self, work: Callable[[Transaction], T], emits: Collection[type[Any]] | None
    ) -> None:
        self.work = work
        self.emits = emits
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self.records: list[Record] = []
        self.after_commit: list[Callable[[], None]] = []
        self.result: T
        self.error: BaseException | None = None

    def run(self, connection: Connection, journal: Journal) -> None:
        transaction = Transaction(connection, journal, self.emits)
        try:
            with connection.begin_nested():
                self.result = self.work(transaction)
            self.records = transaction.records
            self.after_commit = transaction.after_commit
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits the unit
            self.error = error

    def resolve(self) -> None:
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Owns the write connection of the market database."""

    def __init__(
        self, engine: Engine, journal: Journal, publish: Callable[[list[Record]], None]
    ) -> None:
        """`publish` is called on the event loop with the records of each commit, in order."""
        self._engine = engine
        self._journal = journal
        self._publish = publish
        self._queue: queue.SimpleQueue[_Unit[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="market-writer", daemon=True)

    @property
    def waiting(self) -> int:
        """Units of work that wait for their commit."""
        return self._queue.qsize()

    @property
    def alive(self) -> bool:
        """Whether the thread that commits runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Claim the journal's shards and start taking work; raises StoreError."""
        with self._engine.begin() as connection:
            self._journal.claim(connection)
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    async def transact(
        self,
        work: Callable[[Transaction], T],
        *,
        emits: Collection[type[Any]] | None = None,
    ) -> T:
        """Run a unit of work; return its result once it is committed.

        Cancelling the caller does not undo the work: it may still commit.
        """
        unit = _Unit(work, emits)
        self._queue.put(unit)
        return await unit.future

    def _run(self) -> None:
        with self._engine.connect() as connection:
            while (units := self._take()) is not None:
                self._commit(connection, units)

    def _take(self) -> list[_Unit[Any]] | None:
        first = self._queue.get()
        if first is None:
            return None
        units = [first]
        while len(units) < _GROUP and not self._queue.empty():
            unit = self._queue.get()
            if unit is None:
                self._queue.put(None)
                break
            units.append(unit)
        return units

    def _commit(self, connection: Connection, units: list[_Unit[Any]]) -> None:
        try:
            with connection.begin():
                for unit in units:
                    unit.run(connection, self._journal)
        except Exception as error:  # noqa: BLE001 - the commit failed: nobody may acknowledge
            failure = StoreError(f"the commit failed: {error}")
            failure.__cause__ = error
            for unit in units:
                unit.error, unit.records, unit.after_commit = failure, [], []
        try:
            units[0].loop.call_soon_threadsafe(self._finish, units)
        except RuntimeError:  # the loop closed while we committed: nobody waits any more
            _log.warning("commit_without_audience", units=len(units))

    def _finish(self, units: list[_Unit[Any]]) -> None:
        records = [record for unit in units for record in unit.records]
        if records:
            self._publish(records)
        for unit in units:
            for callback in unit.after_commit:
                callback()
            unit.resolve()
