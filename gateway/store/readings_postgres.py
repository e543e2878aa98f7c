"""Readings in PostgreSQL, in a schema of their own, by COPY.

The key starts with the series: one series is read over weeks for a baseline, and here
the pages that are written to stay in memory.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, LiteralString

import psycopg
import structlog
from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError

from gateway.store import claims, passed_on
from gateway.store.engine import back_off, from_us, is_lost, to_us
from gateway.store.readings import NEWEST, Quarantined, SeriesData
from gateway.store.readings_grouped import (
    DAY_US,
    Group,
    GroupedReadings,
    Known,
    Row,
    to_reading,
    to_series,
)
from marketplace_core.errors import StoreError
from marketplace_core.verification.reading import Reading

_SCHEMA: Final = """
SELECT pg_advisory_xact_lock(439804651100);
CREATE SCHEMA IF NOT EXISTS flexway_readings;
CREATE TABLE IF NOT EXISTS flexway_readings.series (
  number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS flexway_readings.readings (
  at_us bigint NOT NULL, series integer NOT NULL, seconds float8 NOT NULL,
  power_kw float8 NOT NULL, soc_kwh float8, available boolean NOT NULL, sample_kw float8,
  register_kwh float8, PRIMARY KEY (series, at_us));
ALTER TABLE flexway_readings.readings ADD COLUMN IF NOT EXISTS register_kwh float8;
CREATE TABLE IF NOT EXISTS flexway_readings.marks (
  series integer NOT NULL, boot bigint NOT NULL, through bigint NOT NULL,
  base bigint NOT NULL DEFAULT 0, lost bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (series, boot)) WITH (fillfactor = 50);
ALTER TABLE flexway_readings.marks ADD COLUMN IF NOT EXISTS base bigint NOT NULL DEFAULT 0;
ALTER TABLE flexway_readings.marks ADD COLUMN IF NOT EXISTS lost bigint NOT NULL DEFAULT 0;
CREATE TABLE IF NOT EXISTS flexway_readings.holes (
  series integer NOT NULL, boot bigint NOT NULL, first bigint NOT NULL, last bigint NOT NULL,
  PRIMARY KEY (series, boot, first));
CREATE TABLE IF NOT EXISTS flexway_readings.quarantine (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at_us bigint NOT NULL,
  source text NOT NULL, reason text NOT NULL, evidence bytea NOT NULL);
"""
_STAGE: Final = """
CREATE TEMPORARY TABLE IF NOT EXISTS staged (
  at_us bigint, series integer, seconds float8, power_kw float8, soc_kwh float8,
  available boolean, sample_kw float8, register_kwh float8) ON COMMIT DELETE ROWS
"""
_TYPES: Final = ["int8", "int4", "float8", "float8", "float8", "bool", "float8", "float8"]
_STRAIGHT: Final = "COPY flexway_readings.readings FROM STDIN (FORMAT BINARY)"
_STAGED: Final = "COPY staged FROM STDIN (FORMAT BINARY)"
_INSERT: Final = "INSERT INTO flexway_readings.readings SELECT * FROM staged ON CONFLICT DO NOTHING"
_MARK: Final = (
    "INSERT INTO flexway_readings.marks (series, boot, through, base, lost)"
    " SELECT * FROM unnest(%s::integer[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
    " ON CONFLICT (series, boot) DO UPDATE SET through = greatest(marks.through, excluded.through),"
    " base = excluded.base, lost = excluded.lost"
)
_MENDED: Final = (
    "DELETE FROM flexway_readings.holes h USING unnest(%s::integer[], %s::bigint[]) AS m(series,"
    " boot) WHERE h.series = m.series AND h.boot = m.boot"
)
_HOLES: Final = (
    "INSERT INTO flexway_readings.holes (series, boot, first, last)"
    " SELECT * FROM unnest(%s::integer[], %s::bigint[], %s::bigint[], %s::bigint[])"
)
_REGISTER: Final = (
    "INSERT INTO flexway_readings.series (name) SELECT * FROM unnest(%s::text[])"
    " ON CONFLICT DO NOTHING"
)
_NUMBERS: Final = "SELECT name, number FROM flexway_readings.series WHERE name = ANY(%s)"
_PUT_ASIDE: Final = (
    "INSERT INTO flexway_readings.quarantine (at_us, source, reason, evidence)"
    " VALUES (%s, %s, %s, %s)"
)
_PUT_ASIDE_NEWEST: Final = (
    "SELECT at_us, source, reason, evidence, number FROM flexway_readings.quarantine"
    " WHERE number < %s ORDER BY number DESC LIMIT %s"
)
_BETWEEN: Final = (
    "SELECT at_us, seconds, power_kw FROM flexway_readings.readings"
    " WHERE at_us >= %s AND at_us < %s AND series ="
    " (SELECT number FROM flexway_readings.series WHERE name = %s) ORDER BY at_us"
)
STORED: Final = (
    "SELECT k.place FROM unnest(%s::bigint[], %s::text[]) WITH ORDINALITY AS k(at_us, name, place)"
    " JOIN flexway_readings.series s ON s.name = k.name CROSS JOIN LATERAL"
    " (SELECT 1 FROM flexway_readings.readings r WHERE r.at_us = k.at_us AND r.series = s.number"
    " OFFSET 0) AS there"
)
"""OFFSET 0 keeps the planner from reading the whole table, which it does where statistics lag."""
_LATEST: Final = (
    "SELECT s.name, r.at_us, r.seconds, r.power_kw, r.soc_kwh, r.available, r.sample_kw,"
    " r.register_kwh"
    " FROM flexway_readings.series s CROSS JOIN LATERAL (SELECT * FROM flexway_readings.readings"
    " WHERE series = s.number ORDER BY at_us DESC LIMIT 1) r ORDER BY s.name"
)
_MISSING: Final = (
    "SELECT s.name, sum(m.count)::bigint FROM (SELECT series, lost AS count FROM"
    " flexway_readings.marks WHERE lost > 0 UNION ALL SELECT series, last - first + 1 FROM"
    " flexway_readings.holes) m JOIN flexway_readings.series s ON s.number = m.series"
    " GROUP BY s.name"
)
_log = structlog.get_logger(__name__)


class PostgresReadings(GroupedReadings):
    """Readings in one PostgreSQL database (`synchronous_commit=on`).

    When the connection breaks, whoever waits gets a StoreError, and connections are
    tried again with growing pauses. What was in doubt is told apart by its marks.
    """

    failures = (psycopg.Error, DBAPIError)

    def __init__(self, engine: Engine, *, inline: bool = False, patience_s: float = 30.0) -> None:
        """`engine` is this store's own, made by `open_engine`; closed when the store stops.

        Reads wait up to `patience_s` wall seconds for a server that is away.
        """
        super().__init__(name="readings-writer", inline=inline)
        self._engine = engine
        self._pooled: PoolProxiedConnection | None = None
        self._patience_s = patience_s
        self._waits = back_off(float("inf"))

    def quarantined(self, limit: int = 100, before: int = NEWEST) -> list[Quarantined]:
        """The newest messages put aside, of those before a number."""
        return [
            Quarantined(
                at=from_us(at_us),
                source=source,
                reason=reason,
                evidence=bytes(evidence),
                number=number,
            )
            for at_us, source, reason, evidence, number in self._read(
                _PUT_ASIDE_NEWEST, before, limit
            )
        ]

    def between(self, series: str, start: datetime, end: datetime) -> SeriesData:
        """Readings of a series that touch `[start, end)` and began at most a day before it."""
        return to_series(self._read(_BETWEEN, to_us(start) - DAY_US, to_us(end), series), start)

    def stored(self, keys: Sequence[tuple[str, datetime]]) -> set[tuple[str, datetime]]:
        """Those of some series and starts that have a reading."""
        starts, names = [to_us(start) for _, start in keys], [series for series, _ in keys]
        return {keys[place - 1] for (place,) in self._read(STORED, starts, names)}

    def latest(self) -> list[Reading]:
        """The newest reading of every series: what is known of devices after a restart."""
        return [to_reading(row) for row in self._read(_LATEST)]

    def prepare(self) -> None:
        """Make the tables where they are missing."""
        self._read(_SCHEMA + claims.SCHEMA + passed_on.SCHEMA)

    def start(self) -> None:
        """Make the tables where they are missing, then begin to take readings."""
        self.prepare()
        super().start()

    def _read(self, query: str, *parameters: Any) -> list[Any]:
        for wait in itertools.chain(back_off(self._patience_s), [None]):
            try:
                with self._engine.begin() as connection:
                    result = connection.exec_driver_sql(query, parameters or None)
                    # Plain tuples: NumPy asks a Row for a dozen attributes that it has not.
                    return [tuple(row) for row in result] if result.returns_rows else []
            except DBAPIError as error:
                if wait is None or not is_lost(error):
                    raise StoreError(f"readings could not be read: {error}") from error
                time.sleep(wait)
        return []

    @property
    def _driver(self) -> psycopg.Connection[Any]:
        if self._pooled is None:
            self._pooled = self._engine.raw_connection()
            with _of(self._pooled).cursor() as cursor:
                cursor.execute(_STAGE)
            _of(self._pooled).commit()
        return _of(self._pooled)

    def _begin(self) -> None:
        self._driver.rollback()  # the driver begins by itself, with the first statement

    def _load(self) -> Known:
        numbers = self._driver.execute("SELECT name, number FROM flexway_readings.series")
        marks = self._driver.execute(
            "SELECT series, boot, through, base, lost FROM flexway_readings.marks"
        ).fetchall()
        holes = self._driver.execute(
            "SELECT series, boot, first, last FROM flexway_readings.holes"
            " ORDER BY series, boot, first"
        )
        return Known(numbers=dict(numbers.fetchall()), marks=marks, holes=holes.fetchall())

    def _register(self, names: Sequence[str]) -> dict[str, int]:
        self._driver.execute(_REGISTER, (list(names),))
        return dict(self._driver.execute(_NUMBERS, (list(names),)).fetchall())

    def _write(self, group: Group) -> None:
        with self._driver.cursor() as cursor:
            if group.rows:
                self._copy_in(cursor, group.rows)
            for statement, table in (
                (_MARK, group.marks), (_MENDED, group.mended), (_HOLES, group.holes)
            ):  # fmt: skip
                if table:
                    columns = zip(*table, strict=True)
                    cursor.execute(statement, [list(column) for column in columns])
            for m in group.messages:
                text = (_plain(m.source), _plain(m.reason))
                cursor.execute(_PUT_ASIDE, (to_us(m.at), *text, m.evidence))

    def _copy_in(self, cursor: psycopg.Cursor[Any], rows: Sequence[Row]) -> None:
        """COPY rows; when one is there already, all of them by a detour that leaves it out.

        Readings with a sequence were told apart before: they seldom take the detour.
        """
        cursor.execute("SAVEPOINT straight")
        try:
            _copy(cursor, _STRAIGHT, rows)
        except psycopg.errors.UniqueViolation:
            cursor.execute("ROLLBACK TO SAVEPOINT straight")
            _copy(cursor, _STAGED, rows)
            cursor.execute(_INSERT)
        cursor.execute("RELEASE SAVEPOINT straight")

    def _end(self) -> None:
        self._driver.commit()
        self._waits = back_off(float("inf"))

    def _abandon(self) -> None:
        broken = self._pooled
        self._pooled = None
        if broken is not None:
            broken.invalidate()
        wait = next(self._waits)
        _log.warning("readings_not_stored", next_try_in_s=wait)
        time.sleep(wait)

    def _close(self) -> None:
        pooled, self._pooled = self._pooled, None
        if pooled is not None:
            pooled.close()
        self._engine.dispose()


def missing_in(engine: Engine) -> dict[str, int]:
    """Readings that are missing per series that misses any, whichever process stores them."""
    with engine.connect() as connection:
        rows: list[Any] = list(connection.exec_driver_sql(_MISSING))
    return dict(rows)


def _of(pooled: PoolProxiedConnection) -> psycopg.Connection[Any]:
    driver = pooled.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - what the dialect promises
    return driver


def _copy(cursor: psycopg.Cursor[Any], statement: LiteralString, rows: Sequence[Row]) -> None:
    with cursor.copy(statement) as copy:
        copy.set_types(_TYPES)
        for row in rows:
            copy.write_row(row)


def _plain(text: str) -> str:
    """PostgreSQL's text takes every character but NUL."""
    return text.replace("\0", "\\0")
