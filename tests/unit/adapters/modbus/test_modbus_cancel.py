"""A request that is cancelled ends, whatever arrives at the same moment."""

from __future__ import annotations

import asyncio
import time

import pytest

from adapters.modbus.link import ModbusLink
from adapters.modbus.wire import BASES
from firmware_sim.servers.modbus import MeterUnit, ModbusServer

pytestmark = pytest.mark.process


async def read_for_ever(link: ModbusLink) -> None:
    while True:
        await link.read(1, BASES[0], 2)


async def cancelled_as_the_answer_comes(link: ModbusLink, task: asyncio.Task[None]) -> None:
    """Cancel between the arrival of an answer and the moment its reader hears of it."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def look() -> None:
        client = link._client
        answer = getattr(client, "answer", None)
        if answer is not None and answer.done() and not answer.cancelled():
            task.cancel()
            done.set()
        else:
            loop.call_soon(look)

    look()
    await asyncio.wait_for(done.wait(), 10)


async def test_cancellation_that_meets_the_answer_is_not_lost() -> None:
    async with ModbusServer({1: MeterUnit("meter-1", serial="SN1")}) as server:
        link = ModbusLink("127.0.0.1", server.port, timeout_s=5.0, monotonic=time.monotonic)
        for _ in range(5):
            task = asyncio.create_task(read_for_ever(link))
            await cancelled_as_the_answer_comes(link, task)
            _, pending = await asyncio.wait([task], timeout=5)
            assert not pending, "the cancellation was lost"
            assert task.cancelled()
        assert (await link.read(1, BASES[0], 2)) == [0x5375, 0x6E53]
        link.close()
