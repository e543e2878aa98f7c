"""Opening the market database and bringing its schema up to date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIGRATIONS = Path(__file__).with_name("migrations")


def to_us(at: datetime) -> int:
    """Microseconds since 1970 of an aware instant, exact."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def from_us(value: int) -> datetime:
    """The instant of `to_us`."""
    return _EPOCH + timedelta(microseconds=value)


def open_engine(url: str) -> Engine:
    """Open the market database; SQLite commits are durable before they return.

    `synchronous=FULL` makes SQLite call fdatasync on the write-ahead log at every commit.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"isolation_level": None, "timeout": 30.0})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin)
    return engine


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest revision."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    # The driver's own BEGIN is off (isolation_level=None): it starts late and breaks SAVEPOINT.
    connection.exec_driver_sql("BEGIN")
