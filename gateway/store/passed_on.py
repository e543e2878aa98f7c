"""What ingest workers pass on to the process that dispatches: readings, findings.

Rows are written in the commit of the readings they tell of, and taken away when they are
read: nothing that is stored goes unheard, however late, and a restart hears the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Engine

from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS flexway_readings.passed_on (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(), body bytea NOT NULL);
"""
INSERT_PASSED: Final = "INSERT INTO flexway_readings.passed_on (body) VALUES (%s)"
_TAKE: Final = (
    "DELETE FROM flexway_readings.passed_on WHERE number = ANY(ARRAY("
    "SELECT number FROM flexway_readings.passed_on ORDER BY number LIMIT %s))"
    " RETURNING number, body"
)
_AGE: Final = "DELETE FROM flexway_readings.passed_on WHERE at < clock_timestamp() - interval '1d'"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker noticed about a device."""

    device_id: str
    kind: FlagKind
    since: datetime
    evidence: str


class Passed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row: what was stored by one commit, or what was noticed."""

    readings: Sequence[Reading] = ()
    findings: Sequence[Finding] = ()


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Passed)


def packed(passed: Passed) -> bytes:
    """The body of a row."""
    return _ENCODER.encode(passed)


def pass_on(engine: Engine, findings: Sequence[Finding]) -> None:
    """Pass findings on."""
    with engine.begin() as connection:
        connection.exec_driver_sql(INSERT_PASSED, (packed(Passed(findings=findings)),))


def take(engine: Engine, most: int) -> list[Passed]:
    """Take the oldest rows away and return them, oldest first, at most so many."""
    with engine.begin() as connection:
        rows: list[Any] = list(connection.exec_driver_sql(_TAKE, (most,)))
    return [_DECODER.decode(bytes(body)) for _, body in sorted(rows, key=lambda row: row[0])]


def forget_old(engine: Engine) -> int:
    """Drop what nobody took for a day: with nobody dispatching it must not fill the disk."""
    with engine.begin() as connection:
        return int(connection.exec_driver_sql(_AGE).rowcount)
