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


async def test_nothing_is_told_before_the_commit(commits: Commits, sink: ListSink) -> None:
    sink.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        told = [tasks.create_task(commits.take(readings(2))) for _ in range(3)]
        done, _ = await asyncio.wait(told, timeout=0.05)
        assert not done
        sink.gate.set()
    assert (len(sink.readings), sink.asked) == (6, 1)  # and they share it
    await commits.take([])  # a message without readings waits for nobody


async def test_a_store_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    sink = Failing()
    commits = Commits(sink)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(commits.run())
        await commits.take(readings(1))
        running.cancel()
    assert len(sink.readings) == 1


async def test_what_the_disk_cannot_follow_is_dropped_and_counted(sink: ListSink) -> None:
    commits = Commits(sink)  # nobody runs it: the disk stands still
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(commits.take(readings(module._MOST_WAITING)))
        await asyncio.sleep(0)
        await commits.take(readings(3))
        assert commits.shed == 3
        assert not waiting.done()
        commits.abandon()
    await commits.take(readings(1))  # it has ended: nobody waits
    assert sink.readings == []
