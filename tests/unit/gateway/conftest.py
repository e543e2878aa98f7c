from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from gateway.bus.local import LocalBus
from gateway.store.engine import migrate, open_engine
from gateway.store.journal import Journal
from gateway.store.writer import Writer


class SteppingClock:
    """Market time that moves one second at every look; nothing waits."""

    def __init__(self) -> None:
        self.at = datetime(2017, 7, 20, 23, 0, tzinfo=UTC)

    def now(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def wall_seconds(self, market_seconds: float) -> float:
        return market_seconds

    async def sleep_until(self, at: datetime) -> None:
        self.at = max(self.at, at)
        await asyncio.sleep(0)


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
