from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from gateway.bus.local import LocalBus
from gateway.store.engine import migrate, open_engine
from gateway.store.journal import Journal
from gateway.store.writer import Writer
from tests.harness.clocks import SteppingClock


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'market.db'}")
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def bus() -> LocalBus:
    return LocalBus()


@pytest.fixture
def start_writer(
    engine: Engine, clock: SteppingClock, bus: LocalBus
) -> Iterator[Callable[[], Writer]]:
    started: list[Writer] = []

    def start() -> Writer:
        writer = Writer(engine, Journal(clock, shards=2), bus.publish)
        writer.start()
        started.append(writer)
        return writer

    yield start
    for writer in started:
        writer.stop()
