"""A simulated charger ends when it is told to, whatever its client was in the middle of."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest

from firmware_sim.servers.mqtt import MqttDevice


class Forgetful:
    """A client that forgets a cancellation which comes together with the broker's answer."""

    def __init__(self) -> None:
        self.publishing = asyncio.Event()

    async def publish(self, *_: Any, **__: Any) -> None:
        self.publishing.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return


@pytest.mark.parametrize("part", ["telemetry", "injected", "answer"])
async def test_a_cancellation_that_meets_an_answer_is_obeyed(part: str) -> None:
    device, client = MqttDevice("ev-1", "org_v", boot=1), Forgetful()
    work = device._publish
    if part == "telemetry":
        device.report([0, 1, 60.0, 0.0])
    elif part == "injected":
        device.inject("telemetry", b"x")
    else:
        work = device._obey
        query = {"v": 1, "kind": "query", "id": "q"}
        device._arrived.put_nowait((0.0, msgpack.packb(query)))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(work(client))  # type: ignore[arg-type]
        await client.publishing.wait()
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=5)
        running.cancel()
    assert done
