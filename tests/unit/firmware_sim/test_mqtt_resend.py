"""An MQTT device and its unconfirmed readings: what goes out again, and when, without a broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiomqtt
import msgpack
import pytest

from firmware_sim.servers.mqtt import MqttDevice

RESEND_S = 30.0


class Client:
    """In place of aiomqtt's client: notes the sequences of every telemetry message."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []

    async def publish(self, topic: str, payload: bytes, *, qos: int) -> None:
        assert topic.endswith("/telemetry")
        assert qos == 1
        self.sent.append([row[0] for row in msgpack.unpackb(payload)["readings"]])


class Bench:
    """A device that publishes to a client, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.client = Client()
        self.device = MqttDevice(
            "ev-1", "org_s", boot=7, monotonic=lambda: self.now, resend_s=RESEND_S
        )
        self._sequence = 0

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.device._publish(cast("aiomqtt.Client", self.client)))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def report(self, at: float) -> list[list[int]]:
        """A fresh reading at a time of the clock; what went out because of it."""
        self.now = at
        before = len(self.client.sent)
        self.device.report([self._sequence, 1_000_000 * self._sequence, 1.0, 0.0, 0.0, None, True])
        self._sequence += 1
        for _ in range(10):
            await asyncio.sleep(0)
        return self.client.sent[before:]

    def stored(self, through: int, boot: int = 7) -> None:
        self.device._forget({"boot": boot, "through": through})


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    async with made.publishing():
        yield made


async def test_fresh_readings_go_out_once_while_it_is_not_time_to_doubt(bench: Bench) -> None:
    for number in range(5):
        assert await bench.report(at=number * 5.0) == [[number]]


async def test_what_is_kept_goes_out_again_although_fresh_readings_keep_coming(
    bench: Bench,
) -> None:
    """The first one got lost: nothing after it is confirmed until it arrives."""
    for number in range(6):
        await bench.report(at=number * 5.0)
    assert await bench.report(at=29.9) == [[6]]
    assert await bench.report(at=RESEND_S + 5.0) == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert await bench.report(at=RESEND_S + 6.0) == [[8]]


async def test_it_doubts_again_after_as_long(bench: Bench) -> None:
    await bench.report(at=0.0)
    await bench.report(at=1.0)
    assert await bench.report(at=1.0 + RESEND_S) == [[0, 1, 2]]
    assert await bench.report(at=2 * RESEND_S) == [[3]]
    assert await bench.report(at=1.0 + 2 * RESEND_S) == [[0, 1, 2, 3, 4]]


async def test_a_confirmation_of_some_begins_the_wait_anew_and_they_are_gone(bench: Bench) -> None:
    await bench.report(at=0.0)
    await bench.report(at=1.0)
    bench.stored(through=0)
    assert await bench.report(at=RESEND_S + 5.0) == [[2]]
    assert await bench.report(at=2 * RESEND_S + 5.0) == [[1, 2, 3]]


@pytest.mark.parametrize(("through", "boot"), [(-1, 7), (1, 6)])
async def test_a_confirmation_of_nothing_new_does_not_put_it_off(
    bench: Bench, through: int, boot: int
) -> None:
    await bench.report(at=0.0)
    await bench.report(at=1.0)
    bench.stored(through=through, boot=boot)
    assert await bench.report(at=1.0 + RESEND_S) == [[0, 1, 2]]


async def test_the_wait_counts_from_the_oldest_reading_that_is_not_confirmed(bench: Bench) -> None:
    """All was confirmed and then nothing was measured for an hour: nothing is in doubt."""
    await bench.report(at=0.0)
    bench.stored(through=0)
    assert await bench.report(at=3600.0) == [[1]]
    assert await bench.report(at=3601.0) == [[2]]


async def test_confirmed_readings_never_go_out_again(bench: Bench) -> None:
    seen: list[Any] = []
    for number in range(40):
        seen += await bench.report(at=number * 10.0)
        bench.stored(through=number)
    assert seen == [[number] for number in range(40)]
    assert bench.device.unconfirmed == 0
