"""What is found wrong with a device is said once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.flags import Flags
from gateway.observability.metrics import Metrics
from marketplace_core.verification.flags import Flag, FlagKind
from tests.harness.clocks import eventually

START = datetime(2026, 7, 20, 22, 0, tzinfo=UTC)


class Clock:
    """Market time that the test moves."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock) -> Flags:
    return Flags(writer=cast("Any", None), clock=cast("Any", clock), profiles={}, metrics=Metrics())


def said(flags: Flags) -> list[tuple[str, str, str]]:
    queue: list[Flag] = list(flags._queue._queue)  # type: ignore[attr-defined]
    return [(flag.device_id, flag.kind.value, flag.order_id) for flag in queue]


def find(flags: Flags, kind: FlagKind, order: str = "", device: str = "bat-1") -> None:
    flags.found(device_id=device, kind=kind, since=START, evidence="seen", order_id=order)


def test_a_device_that_does_not_follow_is_one_finding_of_an_order(clock: Clock) -> None:
    flags = made(clock)
    find(flags, FlagKind.CLAMPS, "ord_1")
    find(flags, FlagKind.IGNORES, "ord_1")
    find(flags, FlagKind.IGNORES, "ord_2")
    assert said(flags) == [("bat-1", "clamps", "ord_1"), ("bat-1", "ignores", "ord_2")]


def test_after_a_restart_it_is_not_said_again(clock: Clock) -> None:
    flags = made(clock)
    known = Flag(device_id="bat-1", kind=FlagKind.CLAMPS, at=START, order_id="ord_1",
                 evidence="seen", after_intervals=2.0)  # fmt: skip
    flags.restore([known])
    find(flags, FlagKind.IGNORES, "ord_1")
    find(flags, FlagKind.OPTS_OUT, "ord_1")
    assert said(flags) == [("bat-1", "opts_out", "ord_1")]


def test_outside_of_orders_it_is_said_again_after_a_while(clock: Clock) -> None:
    flags = made(clock)
    for _ in range(2):
        find(flags, FlagKind.OFFLINE)
    clock.at += timedelta(hours=1)
    find(flags, FlagKind.OFFLINE)
    assert len(said(flags)) == 2


class CountingWriter:
    """Runs transactions at once, on nothing, and remembers what each appended."""

    def __init__(self) -> None:
        self.units: list[list[str]] = []
        self.connection = cast("Any", self)

    async def transact(self, work: Callable[[Any], None]) -> None:
        self.units.append([])
        await asyncio.sleep(0)
        work(self)

    def append(self, _stream: str, fact: Any) -> Any:
        self.units[-1].append(fact.flag.device_id)
        return SimpleNamespace(shard=0, sequence=len(self.units[-1]))

    def execute(self, _statement: Any) -> None:
        """The row of the flag."""


async def test_a_thousand_devices_that_go_at_once_do_not_cost_a_thousand_commits(
    clock: Clock,
) -> None:
    writer = CountingWriter()
    flags = Flags(writer=cast("Any", writer), clock=cast("Any", clock), profiles={},
                  metrics=Metrics())  # fmt: skip
    names = [f"ev-{number}" for number in range(1_000)]
    for name in names:
        find(flags, FlagKind.OFFLINE, device=name)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(flags.run())
        await eventually(lambda: sum(map(len, writer.units)) == len(names), what="the findings")
        running.cancel()
    assert [name for unit in writer.units for name in unit] == names
    assert len(writer.units) == 5, "and a command waits for two hundred at most"
