"""Readings are told stored after the commit and not before; what cannot wait is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from adapters.mqtt import commits as module
from adapters.mqtt.commits import Commits
from marketplace_core.errors import StoreError
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading
from tests.harness.clocks import eventually
from tests.harness.sinks import ListSink


def readings(count: int) -> list[Reading]:
    at = datetime(2017, 7, 20, tzinfo=UTC)
    return [Reading(series="a", start=at, seconds=1.0, power_kw=Kw(n)) for n in range(count)]


class Failing(ListSink):
    """Cannot store at the first try."""

    async def store(self, readings: Sequence[Reading]) -> None:
        if not self.asked:
            self.asked += 1
            raise StoreError("the disk is full")
        await super().store(readings)


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
async def commits(sink: ListSink) -> AsyncIterator[Commits]:
    made = Commits(sink)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.run())
        yield made
        running.cancel()


class Told:
    """What was acknowledged, in order, and how often."""

    def __init__(self) -> None:
        self.mids: list[int] = []
        self.calls = 0

    def __call__(self, mids: Sequence[int]) -> None:
        self.calls += 1
        self.mids.extend(mids)


async def test_nothing_is_told_before_the_commit(commits: Commits, sink: ListSink) -> None:
    sink.gate.clear()
    told = Told()
    for mid, count in ((1, 2), (2, 0), (3, 2)):  # one without readings waits for its turn
        commits.add(readings(count), mid=mid, acknowledge=told)
    await eventually(lambda: sink.asked == 1, what="the commit to be asked for")
    assert told.mids == []
    sink.gate.set()
    await eventually(lambda: len(told.mids) == 3, what="the acknowledgements")
    assert (told.mids, told.calls) == ([1, 2, 3], 1)
    assert (len(sink.readings), sink.asked) == (4, 1)  # and they share a commit


async def test_a_store_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    sink, told = Failing(), Told()
    commits = Commits(sink)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(commits.run())
        commits.add(readings(1), mid=7, acknowledge=told)
        await eventually(lambda: told.mids == [7], what="the acknowledgement")
        running.cancel()
    assert len(sink.readings) == 1


async def test_what_the_disk_cannot_follow_is_dropped_counted_and_acknowledged(
    sink: ListSink,
) -> None:
    commits, told = Commits(sink), Told()
    commits.add(readings(module._MOST_WAITING), mid=1, acknowledge=told)
    commits.add(readings(3), mid=2, acknowledge=told)  # nobody runs it: the disk stands still
    assert (commits.shed, told.mids) == (3, [])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(commits.run())
        await eventually(lambda: len(told.mids) == 2, what="the acknowledgements")
        running.cancel()
    assert (told.mids, len(sink.readings)) == ([1, 2], module._MOST_WAITING)
