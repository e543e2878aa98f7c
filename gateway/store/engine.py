"""Opening a database, SQLite or PostgreSQL, and bringing its schema up to date."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from gateway.store.tables import metadata
from marketplace_core.errors import ConfigError, StoreError

T = TypeVar("T")
WRITES: Final = "flexway_writes"
"""Execution option of a connection that writes: it takes SQLite's write lock at BEGIN."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIGRATIONS = Path(__file__).with_name("migrations")
NEWEST_REVISION: Final = "0005"
"""Of the schema: a test holds it to the newest migration."""
_MIGRATION_LOCK: Final = 0x666C657877
"""Advisory lock that processes take in turn to migrate."""
_DRIVER: Final = "postgresql+psycopg"
_POSTGRES: Final = {
    "connect_timeout": 5,
    "application_name": "flexway",
    "options": "-c synchronous_commit=on -c timezone=UTC",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_LONGEST_WAIT_S: Final = 2.0
_READ_TRIES: Final = 3
_log = structlog.get_logger(__name__)


def to_us(at: datetime) -> int:
    """Microseconds since 1970 of an aware instant, exact."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def from_us(value: int) -> datetime:
    """The instant of `to_us`."""
    return _EPOCH + timedelta(microseconds=value)


def back_off(patience_s: float) -> Iterator[float]:
    """Seconds to wait before each new try, doubling; they add up to `patience_s`."""
    spent, wait = 0.0, 0.05
    while spent < patience_s:
        wait = min(wait, patience_s - spent)
        yield wait
        spent += wait
        wait = min(2.0 * wait, _LONGEST_WAIT_S)


def open_engine(url: str, *, password: str | None = None, patience_s: float = 30.0) -> Engine:
    """Open a database; its commits are durable before they return.

    SQLite: `synchronous=FULL` calls fdatasync on the write-ahead log at every commit.
    PostgreSQL: `synchronous_commit=on`; a server that is away is waited for up to
    `patience_s` wall seconds whenever a connection is made.

    Raises:
        ConfigError: the URL names no database that Flexway can use.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return _open_postgres(parsed.set(drivername=_DRIVER), password, patience_s)
    if parsed.get_backend_name() != "sqlite":
        raise ConfigError(f"{parsed!r}: give sqlite:///... or postgresql://...")
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"isolation_level": None, "timeout": 30.0})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin)
    return engine


def is_lost(error: BaseException) -> bool:
    """Whether an error means that there is no connection to the server, or no longer."""
    if not isinstance(error, DBAPIError):
        return False
    # psycopg knows no SQLSTATE where the server could not answer; sqlite3 has none at all.
    return error.connection_invalidated or getattr(error.orig, "sqlstate", "") is None


def run_read(engine: Engine, read: Callable[[Connection], T]) -> T:
    """What a read finds; a connection that is lost on the way is replaced and the read run again.

    Making a connection waits for a server that is away, for as long as the engine is patient.
    """
    for _ in range(_READ_TRIES - 1):
        try:
            return _read_once(engine, read)
        except DBAPIError as error:
            if not is_lost(error) or engine.dialect.name != "postgresql":
                raise
            _log.warning("read_lost", error=str(error.orig))
    return _read_once(engine, read)


def _read_once(engine: Engine, read: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        return read(connection)


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one state of the database, whatever is committed meanwhile."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest revision; processes that start together take turns."""
    if engine.dialect.name != "postgresql" and _read_once(engine, _is_newest):
        return
    with engine.connect() as connection:
        if engine.dialect.name != "postgresql":
            _upgrade(connection)
            return
        _check_encoding(connection)
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
        connection.commit()
        try:
            _upgrade(connection)
            _sort_by_bytes(connection)
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})
            connection.commit()


def _is_newest(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return version == NEWEST_REVISION


def _upgrade(connection: Connection) -> None:
    # Imported where there is something to do: it is a tenth of the time of a start.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _open_postgres(url: URL, password: str | None, patience_s: float) -> Engine:
    if password is not None:
        url = url.set(password=password)
    engine = create_engine(
        url, pool_pre_ping=True, pool_size=8, max_overflow=24, connect_args=_POSTGRES,
        hide_parameters=True,
    )  # fmt: skip

    @event.listens_for(engine, "do_connect")
    def patiently(dialect: Any, _record: object, cargs: Any, cparams: Any) -> Any:
        # The first try is without delay; the last one's error is for the caller.
        failures = dialect.dbapi.OperationalError
        for number, wait in enumerate(itertools.chain(back_off(patience_s), [None])):
            try:
                return dialect.connect(*cargs, **cparams)
            except failures as error:
                if wait is None:
                    raise
                if number == 0:
                    _log.warning("database_away", url=repr(url), error=str(error))
                time.sleep(wait)
        return None

    return engine


def _check_encoding(connection: Connection) -> None:
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise StoreError(
            f"the database's encoding is {encoding}: make one with "
            "createdb --encoding=UTF8 --template=template0"
        )


def _sort_by_bytes(connection: Connection) -> None:
    """Give every text column the collation "C": ids then sort as they do in SQLite.

    What is cleared, planned and settled must not depend on a server's language.
    """
    found = connection.execute(
        text(
            "SELECT c.table_name, c.column_name, format_type(a.atttypid, a.atttypmod) AS type"
            " FROM information_schema.columns c JOIN pg_attribute a ON a.attname = c.column_name"
            " AND a.attrelid = to_regclass(quote_ident(c.table_name))"
            " WHERE c.table_schema = current_schema() AND c.table_name = ANY(:names)"
            " AND c.data_type IN ('text', 'character varying')"
            " AND c.collation_name IS DISTINCT FROM 'C'"
        ),
        {"names": list(metadata.tables)},
    ).all()
    for row in found:
        connection.exec_driver_sql(
            f'ALTER TABLE "{row.table_name}" ALTER COLUMN "{row.column_name}"'
            f' TYPE {row.type} COLLATE "C"'
        )
    connection.commit()


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    # The driver's own BEGIN is off (isolation_level=None): it starts late and breaks SAVEPOINT.
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
