"""The one writer of the market database, with group commit.

Every unit of work runs in its own SAVEPOINT; all that wait share one COMMIT. A unit
sees its result only after that commit, so whoever awaits it may acknowledge. When the
connection to a server is lost, the writer finds out whether the commit came through
and runs the units again only if it did not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final, Generic, TypeVar

import structlog
from sqlalchemy import Connection, Engine

from gateway.store.engine import WRITES, back_off, is_lost
from gateway.store.group_commit import GroupCommit, Waiting
from gateway.store.journal import Journal
from marketplace_core.errors import FencedError, StoreError
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


class _Unit(Waiting[T], Generic[T]):
    def __init__(
        self, work: Callable[[Transaction], T], emits: Collection[type[Any]] | None
    ) -> None:
        super().__init__()
        self.work = work
        self.emits = emits
        self.records: list[Record] = []
        self.after_commit: list[Callable[[], None]] = []

    def run(self, connection: Connection, journal: Journal) -> None:
        """Do the work in a savepoint; raises only what concerns the whole group."""
        transaction = Transaction(connection, journal, self.emits)
        self.error, self.records, self.after_commit = None, [], []
        try:
            with connection.begin_nested():
                self.result = self.work(transaction)
            self.records = transaction.records
            self.after_commit = transaction.after_commit
        except FencedError:
            raise
        except Exception as error:
            if is_lost(error) or connection.invalidated:
                raise
            self.error = error


class Writer:
    """Owns the write connection of the market database."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        publish: Callable[[list[Record]], None],
        *,
        inline: bool = False,
        patience_s: float = 30.0,
    ) -> None:
        """`publish` is called on the event loop with the records of each commit, in order.

        Inline, `transact` commits in the calling coroutine, without a thread. `patience_s`:
        wall seconds that a lost connection is tried again before its units fail.
        """
        self._engine = engine
        self._journal = journal
        self._publish = publish
        self._patience_s = patience_s
        self._connection: Connection | None = None
        self._in_doubt: list[_Unit[Any]] | None = None
        """A group whose COMMIT was sent and never answered."""
        self._late: deque[_Unit[Any]] = deque()
        """Units that turned out to be committed after their callers were told that they failed."""
        self._group: GroupCommit[_Unit[Any]] = GroupCommit(
            self._commit, self._finish, name="market-writer", most=_GROUP, close=self._close,
            inline=inline,
        )  # fmt: skip

    @property
    def waiting(self) -> int:
        """Units of work that wait for their commit."""
        return self._group.waiting

    @property
    def alive(self) -> bool:
        """Whether work that is handed in is committed."""
        return self._group.alive

    def start(self) -> None:
        """Claim the journal's shards and start taking work; raises StoreError."""
        connection = self._connect()
        try:
            with connection.begin():
                self._journal.claim(connection)
        except BaseException:
            self._close()
            raise
        self._group.start()

    def stop(self) -> None:
        """Finish what is queued, then end."""
        self._group.stop()

    async def transact(
        self,
        work: Callable[[Transaction], T],
        *,
        emits: Collection[type[Any]] | None = None,
    ) -> T:
        """Run a unit of work; return its result once it is committed.

        Cancelling the caller does not undo the work: it may still commit. The work may run
        more than once, of which one is committed.
        """
        unit = _Unit(work, emits)
        self._group.submit(unit)
        return await unit.future

    def _commit(self, units: list[_Unit[Any]]) -> None:
        try:
            self._persist(units)
        except FencedError as error:
            for unit in units:
                unit.error = error
        except Exception as error:  # noqa: BLE001 - the commit failed: nobody may acknowledge
            failure = StoreError(f"the commit failed: {error}")
            failure.__cause__ = error
            for unit in units:
                unit.error = failure

    def _persist(self, units: list[_Unit[Any]]) -> None:
        """Commit a group, over a lost connection too; raises when it is not committed."""
        began, waits = time.monotonic(), back_off(self._patience_s)
        while True:
            try:
                self._once(units)
            except Exception as error:
                if not self._is_lost(error):
                    self._in_doubt = None
                    self._close()
                    raise
                self._close()
                wait = next(waits, None)
                if wait is None or time.monotonic() - began > self._patience_s:
                    raise
                _log.warning("database_lost", units=len(units), error=str(error))
                time.sleep(wait)
            else:
                return

    def _is_lost(self, error: BaseException) -> bool:
        return is_lost(error) or (self._connection is not None and self._connection.invalidated)

    def _once(self, units: list[_Unit[Any]]) -> None:
        connection = self._connect()
        if self._in_doubt is not None and self._resolve_doubt(connection, units):
            return
        with connection.begin():
            self._journal.stamp(connection)
            for unit in units:
                unit.run(connection, self._journal)
            self._in_doubt = units
        self._in_doubt = None
        self._journal.stamped()

    def _resolve_doubt(self, connection: Connection, units: list[_Unit[Any]]) -> bool:
        """Learn what became of the commit in doubt; True when it was this group's and is there."""
        with connection.begin():
            through = self._journal.came_through(connection)
        doubted, self._in_doubt = self._in_doubt, None
        if not through:
            return False
        self._journal.stamped()
        if doubted is not units:
            self._late.extend(doubted or ())
        return doubted is units

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(**{WRITES: True})
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _finish(self, units: list[_Unit[Any]]) -> None:
        try:
            while self._late:
                self._tell([self._late.popleft()])
            self._tell([unit for unit in units if unit.error is None])
        finally:  # whoever listens may fail: it is committed, and its callers are told so
            for unit in units:
                unit.resolve()

    def _tell(self, committed: list[_Unit[Any]]) -> None:
        records = [record for unit in committed for record in unit.records]
        if records:
            self._publish(records)
        for unit in committed:
            for callback in unit.after_commit:
                callback()
