"""What polling is measured against: a client made for nothing else, and the library as it is.

Both read the same registers from the same servers on the same event loop as we do, one
request at a time on each connection, and decode nothing.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Sequence

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer import FramerType

from tests.bench.modbus_units import HOST, REGISTERS, first_register

UNIT = 1
_ANSWER_BYTES = 9 + 2 * REGISTERS


class Bare(asyncio.Protocol):
    """Asks again as soon as the answer to its last number is whole."""

    def __init__(self) -> None:
        self.answers = 0
        self._number = 0
        self._buffer = b""
        self._asked = struct.pack(">HHBBHH", 0, 6, UNIT, 3, first_register(), REGISTERS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        if len(data) < _ANSWER_BYTES:
            self._buffer = data
            return
        assert data[:2] == self._sent
        self._buffer = b""
        self.answers += 1
        self._ask()

    def _ask(self) -> None:
        self._number = (self._number + 1) & 0xFFFF
        self._sent = self._number.to_bytes(2, "big")
        self._transport.write(self._sent + self._asked)  # type: ignore[attr-defined]


async def bare(ports: Sequence[int], seconds: float) -> tuple[float, float]:
    """Reads per second of the hand-written client, and processor seconds of one."""
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(Bare, HOST, port) for port in ports]
    await asyncio.sleep(0.1)
    measured = await _measured(lambda: sum(client.answers for _, client in made), seconds)
    for transport, _ in made:
        transport.abort()
    return measured


async def library(ports: Sequence[int], seconds: float) -> tuple[float, float]:
    """The same of pymodbus, set as fast as it goes: no retries, no reconnecting."""
    clients = [
        AsyncModbusTcpClient(HOST, port=port, framer=FramerType.SOCKET, timeout=5.0, retries=0,
                             reconnect_delay=0)
        for port in ports
    ]  # fmt: skip
    address, answers, going = first_register(), [0], [True]

    async def read_on(client: AsyncModbusTcpClient) -> None:
        while going:
            answer = await client.read_holding_registers(address, count=REGISTERS, device_id=UNIT)
            assert len(answer.registers) == REGISTERS
            answers[0] += 1

    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            assert await client.connect()
        for client in clients:
            tasks.create_task(read_on(client))
        await asyncio.sleep(0.1)
        measured = await _measured(lambda: answers[0], seconds)
        going.clear()  # it would lose a cancellation that meets an answer
    for client in clients:
        client.close()
    return measured


async def _measured(answers: Callable[[], int], seconds: float) -> tuple[float, float]:
    before, began, spent = answers(), time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    came, elapsed = answers() - before, time.perf_counter() - began
    return came / elapsed, (time.process_time() - spent) / came
