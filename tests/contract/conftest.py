"""Both implementations of every pair, on real servers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine

from gateway.store.engine import open_engine
from tests.harness.clocks import SteppingClock
from tests.harness.servers import PASSWORD, PostgresServer, RedisServer, postgres, redis

SORTED_BY_LANGUAGE = ("--locale-provider=icu", "--icu-locale=en", "--locale=C.UTF-8")
"""An English database: what must not depend on the language shows when it does."""


@dataclass
class Database:
    """One empty database; `open` is what each process does."""

    url: str
    opened: list[Engine] = field(default_factory=list)

    def open(self, *, patience_s: float = 30.0) -> Engine:
        engine = open_engine(self.url, password=PASSWORD, patience_s=patience_s)
        self.opened.append(engine)
        return engine


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with redis() as server:
        yield server


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def make_database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[str], Database]]:
    made: list[Database] = []
    numbers = itertools.count()

    def make(kind: str) -> Database:
        if kind == "sqlite":
            url = f"sqlite:///{tmp_path / f'market-{next(numbers)}.db'}"
        else:
            url = request.getfixturevalue("postgres_server").database(*SORTED_BY_LANGUAGE)
        made.append(Database(url))
        return made[-1]

    yield make
    for database in made:
        for engine in database.opened:
            engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, make_database: Callable[[str], Database]) -> Database:
    return make_database(request.param)
