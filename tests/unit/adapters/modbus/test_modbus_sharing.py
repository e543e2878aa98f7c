"""A device that serves one connection, and another master that needs it as well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adapters.modbus.lines import Line
from adapters.modbus.link import COMMAND, POLL, LineLink
from firmware_sim.servers.modbus import MeterUnit
from tests.harness.clocks import eventually
from tests.harness.modbus_frames import Mbap
from tests.harness.modbus_server import HOST, Connection, Faulty

pytestmark = pytest.mark.process
RELEASE_S, GAP_S = 0.15, 0.3


class OneAtATime:
    """Takes the next connection when the one before has ended, as many inverters do."""

    def __init__(self) -> None:
        self.server = Faulty({1: MeterUnit("m", serial="SN1")}, Mbap(), delay_s=0.0)
        self.spans: list[tuple[float, float]] = []
        """Monotonic times between which each connection was served, in their order."""
        self.port = 0
        self.open = 0
        self._free = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        async with self._free:
            began = time.monotonic()
            connection = Connection(writer.write, writer.write_eof, writer.close)
            while data := await reader.read(4096):
                self.server.received(connection, data)
            self.spans.append((began, time.monotonic()))
        writer.close()
        self.open -= 1


@asynccontextmanager
async def inverter() -> AsyncIterator[OneAtATime]:
    device = OneAtATime()
    listening = await asyncio.start_server(device.serve, HOST, 0)
    device.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield device
        await eventually(lambda: device.open == 0, what="every connection to end")


def master(device: OneAtATime, sharing: str) -> LineLink:
    line = Line(
        host=HOST, port=device.port, sharing=sharing, release_after_s=RELEASE_S, gap_s=GAP_S
    )
    return LineLink(line, timeout_s=5.0, monotonic=time.monotonic)


async def test_a_released_line_goes_to_the_other_master_and_comes_back() -> None:
    async with inverter() as device:
        ours, other = master(device, "release"), master(device, "hold")
        await ours.read(1, 40000, 2)
        await other.read(1, 40000, 2)  # waits until we let go
        assert ours.connections == 1
        assert len(device.spans) == 1
        other.close()
        await ours.read(1, 40000, 2)
        assert ours.connections == 2
        ours.close()


async def test_a_held_line_is_kept_from_the_other_master() -> None:
    async with inverter() as device:
        ours, other = master(device, "hold"), master(device, "hold")
        await ours.read(1, 40000, 2)
        waiting = asyncio.create_task(other.read(1, 40000, 2))
        done, _ = await asyncio.wait([waiting], timeout=3 * RELEASE_S)
        assert not done
        ours.close()
        await waiting
        other.close()


async def test_all_that_waits_is_done_before_the_line_is_let_go() -> None:
    async with inverter() as device:
        ours = master(device, "release")
        await asyncio.gather(*(ours.read(1, 40000, 2) for _ in range(30)))
        assert ours.connections == 1
        await eventually(lambda: len(device.spans) == 1, what="the release")
        assert len(device.server.requests) == 30


async def test_the_other_master_has_the_gap_and_a_command_goes_first_after_it() -> None:
    async with inverter() as device:
        ours, order = master(device, "release"), list[str]()

        async def ask(name: str, lane: int) -> None:
            await ours.read(1, 40000, 2, lane)
            order.append(name)

        await ask("before", POLL)
        await eventually(lambda: len(device.spans) == 1, what="the release")
        async with asyncio.TaskGroup() as tasks:
            for name in ("poll 1", "poll 2"):
                tasks.create_task(ask(name, POLL))
            await asyncio.sleep(0)  # the polls wait for the gap to pass
            tasks.create_task(ask("command", COMMAND))
        ours.close()
        await eventually(lambda: len(device.spans) == 2, what="the second release")
        assert order == ["before", "command", "poll 1", "poll 2"]
        released, taken = device.spans[0][1], device.spans[1][0]
        assert taken - released >= GAP_S * 0.9  # the server hears of the end a moment later
