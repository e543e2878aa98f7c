"""Readings in a SQLite file of their own, by group commit.

Readings stay outside the journal's database: nothing ties one to a fact, so no
transaction has to span both files (which write-ahead logs could not make atomic).
The key starts with time: appends then go to the end of the tree (measured six times
faster than a key that starts with the series).
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.store.engine import from_us, to_us
from gateway.store.sequence import SequenceMarks
from marketplace_core.errors import StoreError
from marketplace_core.verification.reading import Reading

_GROUP: Final = 512
"""Most batches that share one commit."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS series (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS readings (
  at_us INTEGER NOT NULL, series INTEGER NOT NULL, seconds REAL NOT NULL, power_kw REAL NOT NULL,
  soc_kwh REAL, available INTEGER NOT NULL, sample_kw REAL,
  PRIMARY KEY (at_us, series)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
  series INTEGER NOT NULL, boot INTEGER NOT NULL, through INTEGER NOT NULL,
  PRIMARY KEY (series, boot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (
  number INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL,
  evidence BLOB NOT NULL);
"""
_INSERT: Final = "INSERT OR IGNORE INTO readings VALUES (?, ?, ?, ?, ?, ?, ?)"
_MARK: Final = "INSERT OR REPLACE INTO marks VALUES (?, ?, ?)"
_MAX_EVIDENCE: Final = 4096
"""Bytes of a malformed message that are kept."""

Row = tuple[int, int, float, float, float | None, bool, float | None]


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was put aside."""

    at: datetime
    source: str
    reason: str
    evidence: bytes


class SeriesData(msgspec.Struct, frozen=True):
    """Readings of one series, oldest first."""

    start_s: npt.NDArray[np.float64]
    """Start of each span, Unix seconds, shape (n,)."""
    seconds: npt.NDArray[np.float64]
    """Length of each span, shape (n,)."""
    power_kw: npt.NDArray[np.float64]
    """Mean power, injection positive, shape (n,)."""


class _Batch:
    def __init__(self, readings: Sequence[Reading], quarantined: Quarantined | None) -> None:
        self.readings = readings
        self.quarantined = quarantined
        self.fresh: list[Reading] = []
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[list[Reading]] = self.loop.create_future()


class SqliteReadings:
    """Stores readings durably; one writer thread."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; `start` begins taking readings."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._numbers: dict[str, int] = {}
        self._marks = SequenceMarks()
        self._thread = threading.Thread(target=self._run, name="readings-writer", daemon=True)
        with self._connect() as connection:
            connection.executescript(_SCHEMA)
            self._numbers.update(connection.execute("SELECT name, number FROM series"))
            for mark in connection.execute("SELECT series, boot, through FROM marks"):
                self._marks.load(*mark)

    @property
    def waiting(self) -> int:
        """Batches that wait for their commit."""
        return self._queue.qsize()

    def start(self) -> None:
        """Start the writer thread."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what is queued, then end."""
        self._queue.put(None)
        self._thread.join()

    async def store(self, readings: Sequence[Reading]) -> list[Reading]:
        """Commit readings; return those that were new, once they are durable.

        Raises:
            StoreError: the commit failed; nothing may be acknowledged.
        """
        return await self._submit(_Batch(readings, None))

    async def quarantine(self, message: Quarantined) -> None:
        """Keep a malformed message for inspection."""
        await self._submit(_Batch((), message))

    def gaps(self) -> dict[str, int]:
        """Readings given up as lost, per series."""
        names = {number: name for name, number in self._numbers.items()}
        return {names[number]: count for number, count in self._marks.gaps.items()}

    def quarantined(self, limit: int = 100) -> list[Quarantined]:
        """The newest messages put aside."""
        query = (
            "SELECT at_us, source, reason, evidence FROM quarantine ORDER BY number DESC LIMIT ?"
        )
        with self._connect() as connection:
            rows = connection.execute(query, (limit,)).fetchall()
        return [
            Quarantined(at=from_us(at_us), source=source, reason=reason, evidence=evidence)
            for at_us, source, reason, evidence in rows
        ]

    def between(self, series: str, start: datetime, end: datetime) -> SeriesData:
        """Readings of a series that may touch `[start, end)`: starts from a day before it."""
        number = self._numbers.get(series, -1)
        query = (
            "SELECT at_us / 1e6, seconds, power_kw FROM readings"
            " WHERE at_us >= ? AND at_us < ? AND series = ? ORDER BY at_us"
        )
        day_us = 86_400_000_000
        with self._connect() as connection:
            rows = connection.execute(query, (to_us(start) - day_us, to_us(end), number))
            table = np.array(rows.fetchall(), dtype=np.float64).reshape(-1, 3)
        meets = table[:, 0] + table[:, 1] > start.timestamp()
        table = table[meets]
        return SeriesData(table[:, 0], table[:, 1], table[:, 2])

    def latest(self) -> list[Reading]:
        """The newest reading of every series: what is known of devices after a restart."""
        query = (
            "SELECT s.name, r.at_us, r.seconds, r.power_kw, r.soc_kwh, r.available, r.sample_kw"
            " FROM readings r JOIN series s ON s.number = r.series WHERE (r.at_us, r.series) IN"
            " (SELECT max(at_us), series FROM readings GROUP BY series)"
        )
        with self._connect() as connection:
            rows = connection.execute(query).fetchall()
        return [
            Reading(
                series=name, start=from_us(at_us), seconds=seconds, power_kw=power_kw,
                soc_kwh=soc_kwh, available=bool(available), sample_kw=sample_kw,
            )
            for name, at_us, seconds, power_kw, soc_kwh, available, sample_kw in rows
        ]  # fmt: skip

    async def _submit(self, batch: _Batch) -> list[Reading]:
        self._queue.put(batch)
        return await batch.future

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=30.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _run(self) -> None:
        connection = self._connect()
        try:
            while (batches := self._take()) is not None:
                error = self._commit(connection, batches)
                try:
                    batches[0].loop.call_soon_threadsafe(_resolve, batches, error)
                except RuntimeError:
                    continue  # the loop closed while we committed: nobody waits any more
        finally:
            connection.close()

    def _take(self) -> list[_Batch] | None:
        first = self._queue.get()
        if first is None:
            return None
        batches = [first]
        while len(batches) < _GROUP and not self._queue.empty():
            batch = self._queue.get()
            if batch is None:
                self._queue.put(None)
                break
            batches.append(batch)
        return batches

    def _commit(self, connection: sqlite3.Connection, batches: list[_Batch]) -> Exception | None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            rows: list[Row] = []
            touched: set[tuple[int, int]] = set()
            for batch in batches:
                self._rows(connection, batch, rows, touched)
            connection.executemany(_INSERT, rows)
            marks = [(number, boot, self._marks.through(number, boot)) for number, boot in touched]
            connection.executemany(_MARK, marks)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._recover(connection)
            return error
        return None

    def _rows(
        self,
        connection: sqlite3.Connection,
        batch: _Batch,
        rows: list[Row],
        touched: set[tuple[int, int]],
    ) -> None:
        for reading in batch.readings:
            number = self._number(connection, reading.series)
            if self._marks.seen(number, reading.boot, reading.sequence):
                continue
            if reading.sequence >= 0:
                touched.add((number, reading.boot))
            batch.fresh.append(reading)
            rows.append((
                to_us(reading.start), number, reading.seconds, reading.power_kw,
                reading.soc_kwh, reading.available, reading.sample_kw,
            ))  # fmt: skip
        if (message := batch.quarantined) is not None:
            connection.execute(
                "INSERT INTO quarantine (at_us, source, reason, evidence) VALUES (?, ?, ?, ?)",
                (to_us(message.at), message.source, message.reason,
                 message.evidence[:_MAX_EVIDENCE]),
            )  # fmt: skip

    def _number(self, connection: sqlite3.Connection, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = len(self._numbers) + 1
            connection.execute("INSERT INTO series VALUES (?, ?)", (number, name))
            self._numbers[name] = number
        return number

    def _recover(self, connection: sqlite3.Connection) -> None:
        """After a failed commit memory may be ahead of the file: read it again."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        self._numbers = dict(connection.execute("SELECT name, number FROM series"))
        self._marks = SequenceMarks()
        for mark in connection.execute("SELECT series, boot, through FROM marks"):
            self._marks.load(*mark)


def _resolve(batches: list[_Batch], error: Exception | None) -> None:
    for batch in batches:
        if batch.future.cancelled():
            continue
        if error is not None:
            batch.future.set_exception(StoreError(f"readings could not be stored: {error}"))
        else:
            batch.future.set_result(batch.fresh)
