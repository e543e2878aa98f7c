"""Who takes in which device shards: one writer at a time, proven by a fencing epoch.

A claim is a row that its worker keeps fresh. Of two claims that meet one may live: the other
is refused while the first is fresh. Whoever takes a claim over, at once under the same name,
else once it is stale, gives it a new epoch or takes the row away; a commit of the old worker
then finds its epoch gone. Times are the database server's, so clocks of hosts do not matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import Connection, Engine

from marketplace_core.errors import ConfigError, FencedError
from marketplace_core.shards import ShardRange, left_out

FRESH_S: Final = 10.0
"""Seconds without a word after which a claim may be taken over by anybody."""
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS flexway_readings.claims (
  worker text PRIMARY KEY, first integer NOT NULL, last integer NOT NULL,
  epoch bigint NOT NULL, seen timestamptz NOT NULL);
CREATE SEQUENCE IF NOT EXISTS flexway_readings.epochs;
"""
HELD: Final = "SELECT 1 FROM flexway_readings.claims WHERE worker = %s AND epoch = %s FOR SHARE"
"""Asked in every commit: holds off whoever wants to take over until that commit is done."""
_LOCK: Final = "LOCK TABLE flexway_readings.claims IN SHARE ROW EXCLUSIVE MODE"
_ALL: Final = (
    "SELECT worker, first, last, epoch,"
    " extract(epoch FROM clock_timestamp() - seen)::float8 FROM flexway_readings.claims"
    " ORDER BY first, worker"
)
_DROP: Final = "DELETE FROM flexway_readings.claims WHERE worker = %s"
_CLAIM: Final = (
    "INSERT INTO flexway_readings.claims VALUES"
    " (%s, %s, %s, nextval('flexway_readings.epochs'), clock_timestamp()) RETURNING epoch"
)
_RENEW: Final = (
    "UPDATE flexway_readings.claims SET seen = clock_timestamp() WHERE worker = %s AND epoch = %s"
)
_log = structlog.get_logger(__name__)


class Claim(msgspec.Struct, frozen=True):
    """What one worker said that it takes in."""

    worker: str
    shards: ShardRange
    epoch: int
    age_s: float
    """Seconds since it was last heard of."""

    @property
    def fresh(self) -> bool:
        """Whether its worker is believed to live."""
        return self.age_s < FRESH_S


class Claims:
    """One worker's claim among the others."""

    def __init__(
        self, engine: Engine, worker: str, shards: ShardRange, *, replaces: str = ""
    ) -> None:
        """`worker` is the same after a restart, and no other living process has it.

        Whoever's name begins with `replaces` is replaced though it lives.
        """
        self._engine = engine
        self.worker = worker
        self.shards = shards
        self._replaces = replaces
        self.epoch = 0
        """Of the claim that is held; 0 before."""

    def claim(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Take the shards, once nobody who lives holds one of them.

        A claim that is in the way is waited for until it could be stale: its worker may be dead.
        Raises: ConfigError when it is still fresh then.
        """
        others = self._try()
        if others:
            _log.warning("shards_held", shards=str(self.shards), by=_named(others))
            sleep(FRESH_S - min(other.age_s for other in others) + 1.0)
            others = self._try()
        if others:
            raise ConfigError(
                f"shards {self.shards} are taken in by {_named(others)} already: give one of the"
                " workers other shards (--shards), or stop one; with workers beside it the"
                " gateway itself runs with --role dispatch"
            )

    def renew(self) -> list[Claim]:
        """Say that we live; every claim that is fresh. FencedError once it was taken over."""
        with self._engine.begin() as connection:
            renewed = connection.exec_driver_sql(_RENEW, (self.worker, self.epoch))
            if renewed.rowcount != 1:
                raise FencedError(f"shards {self.shards} were taken over by another worker")
            return [each for each in _every(connection) if each.fresh]

    def give_up(self) -> None:
        """Leave the shards to whoever comes, where they are still ours."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"{_DROP} AND epoch = %s", (self.worker, self.epoch))

    def _try(self) -> list[Claim]:
        """Take the shards, or return the living claims that are in the way."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(_LOCK)
            meeting = [
                each for each in _every(connection)
                if each.worker == self.worker or each.shards.meets(self.shards)
            ]  # fmt: skip
            living = [each for each in meeting if each.fresh and not self._may_replace(each)]
            if living:
                return living
            for each in meeting:
                _log.warning("shards_taken_over", shards=str(each.shards), worker=each.worker)
                connection.exec_driver_sql(_DROP, (each.worker,))
            row: Any = connection.exec_driver_sql(_CLAIM, (self.worker, *self.shards)).one()
            self.epoch = row[0]
        return []

    def _may_replace(self, other: Claim) -> bool:
        named = bool(self._replaces) and other.worker.startswith(self._replaces)
        return named or other.worker == self.worker


def living(engine: Engine) -> list[Claim]:
    """Every claim that is fresh."""
    with engine.connect() as connection:
        return [each for each in _every(connection) if each.fresh]


def unclaimed(claims: Sequence[Claim]) -> list[ShardRange]:
    """Shards that nobody takes in."""
    return left_out(each.shards for each in claims)


def _every(connection: Connection) -> list[Claim]:
    return [
        Claim(worker, ShardRange(first, last), epoch, age_s)
        for worker, first, last, epoch, age_s in connection.exec_driver_sql(_ALL)
    ]


def _named(claims: Sequence[Claim]) -> str:
    return ", ".join(
        f"{each.worker} ({each.shards}, heard of {each.age_s:.0f} s ago)" for each in claims
    )
