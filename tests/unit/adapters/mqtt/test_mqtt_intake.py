"""Telemetry on its way to the disk: bounded at QoS 0, and replays told from redeliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from adapters.mqtt import wire
from adapters.mqtt.intake import TelemetryIntake
from tests.harness.clocks import IdentityTime, eventually
from tests.harness.sinks import ListSink

BATCH = 4_000
ROOM = 25
"""Messages of that many readings that fit."""


def telemetry(first: int) -> wire.Telemetry:
    rows = [wire.WireReading(first + n, 1_500_000_000_000_000 + first + n, 60.0, -1.0)
            for n in range(BATCH)]  # fmt: skip
    return wire.Telemetry(boot=1, readings=rows, oldest=0)


async def test_a_flood_at_qos_0_is_shed_and_never_confirmed_while_qos_1_is_taken() -> None:
    sink, through, told = ListSink(), dict[str, int](), list[int]()
    sink.gate.clear()

    def stored(device_id: str, _boot: int, mark: int) -> None:
        through[device_id] = mark

    def acknowledge(mids: Sequence[int]) -> None:
        told.extend(mid for mid in mids if mid)

    intake = TelemetryIntake(sink, IdentityTime(), stored)
    for number in range(ROOM + 2):
        intake.add("ev-1", telemetry(number * BATCH), b"", mid=0, acknowledge=acknowledge)
    assert intake.shed == 2 * BATCH
    intake.add("ev-2", telemetry(0), b"", mid=9, acknowledge=acknowledge)
    assert intake.shed == 2 * BATCH
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(intake.run())
        sink.gate.set()
        await eventually(lambda: len(through) == 2, what="`stored`")
        assert through == {"ev-1": ROOM * BATCH - 1, "ev-2": BATCH - 1}
        assert told == [9]
        again = telemetry(ROOM * BATCH)
        intake.add("ev-1", again, b"", mid=0, acknowledge=acknowledge)
        await eventually(lambda: through["ev-1"] == (ROOM + 1) * BATCH - 1, what="the rest")
        running.cancel()
    assert intake.shed == 2 * BATCH


def rows(*numbers: int, oldest: int) -> wire.Telemetry:
    found = [wire.WireReading(n, 1_500_000_000_000_000 + n, 60.0, -1.0) for n in numbers]
    return wire.Telemetry(boot=1, readings=found, oldest=oldest)


async def test_what_a_killed_broker_delivers_again_is_no_replay_of_the_device() -> None:
    sink = ListSink()

    def one(_mids: Sequence[int]) -> None: ...
    def other(_mids: Sequence[int]) -> None: ...

    intake = TelemetryIntake(sink, IdentityTime(), lambda *_: None)

    async def said(message: wire.Telemetry, session: Callable[[Sequence[int]], None]) -> bool:
        again = intake.dropped_before("ev-1", message, session)
        intake.add("ev-1", message, b"", mid=1, acknowledge=session)
        await eventually(lambda: not intake._waiting, what="the commit")
        return again

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(intake.run())
        first, second = rows(0, 1, oldest=0), rows(2, oldest=2)
        assert not await said(first, one)
        assert not await said(second, one)
        assert await said(first, one)  # within a session a broker repeats nothing unmarked
        assert not await said(first, other)
        assert not await said(second, other)
        assert await said(first, other)
        running.cancel()
