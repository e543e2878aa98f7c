"""RTU, on a serial line or over TCP: the library's client, as `client.py` wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.client.base import ModbusBaseClient
from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerRTU, FramerType

from adapters.modbus.client import NoAnswer
from adapters.modbus.frames import READ, READ_INPUT, WRITE_ONE
from adapters.modbus.lines import Line, Parity

_CRC_BYTES: Final = 2
_MOST_PENDING: Final = 512
"""Bytes in which a frame is looked for: the longest has 256 (MODBUS over Serial Line V1.02,
section 2.5.1), and what came before it may be half of another."""
_PARITIES: Final[dict[Parity, str]] = {"even": "E", "odd": "O", "none": "N"}


class _RtuFramer(FramerRTU):
    """The library's, which takes what follows a frame for a part of it and throws it away.

    What follows another unit's late answer may be the answer that is waited for. Of noise
    without end it keeps the newest bytes: the library would search all of it, each time more.
    """

    def decode(self, data: bytes) -> tuple[int, int, int, bytes]:
        found = self._frame(data[:_MOST_PENDING])
        older = len(data) - _MOST_PENDING
        if found[-1] or older <= 0:
            return found
        used, unit, transaction, pdu = self._frame(data[older:])
        return older + used, unit, transaction, pdu

    def _frame(self, data: bytes) -> tuple[int, int, int, bytes]:
        used, unit, transaction, pdu = super().decode(data)
        if pdu:
            used = data.find(bytes([unit]) + pdu) + 1 + len(pdu) + _CRC_BYTES
        return used, unit, transaction, pdu


class RtuClient:
    """RTU frames, by the library."""

    def __init__(self, line: Line, timeout_s: float) -> None:
        """`timeout_s` is for connecting and for each answer."""
        self.transaction = 0
        self._client = _library_client(line, timeout_s)

    @property
    def connected(self) -> bool:
        """Whether requests can be sent."""
        return bool(self._client.connected)

    async def connect(self) -> bool:
        """Make the connection, or open the device; a serial driver raises what it likes."""
        connected = await self._client.connect()
        _heed_cancellation()
        return bool(connected)

    async def exchange(self, unit: int, pdu: bytes) -> bytes:
        """Send a request, wait for the PDU of its answer; raises NoAnswer."""
        try:
            answer = await self._sent(unit, pdu)
        except (ModbusException, OSError, TimeoutError) as error:
            _heed_cancellation()
            raise NoAnswer(str(error)) from error
        _heed_cancellation()
        return bytes([answer.function_code]) + bytes(answer.encode())

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _sent(self, unit: int, pdu: bytes) -> Awaitable[Any]:
        address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        asked: Awaitable[Any]
        if pdu[0] == READ:
            asked = self._client.read_holding_registers(address, count=count, device_id=unit)
        elif pdu[0] == READ_INPUT:
            asked = self._client.read_input_registers(address, count=count, device_id=unit)
        elif pdu[0] == WRITE_ONE:
            asked = self._client.write_register(address, count, device_id=unit)
        else:
            words = [int.from_bytes(pdu[at : at + 2], "big") for at in range(6, len(pdu), 2)]
            asked = self._client.write_registers(address, words, device_id=unit)
        return asked


def _library_client(line: Line, timeout_s: float) -> ModbusBaseClient:
    client: ModbusBaseClient
    if line.serial is not None:
        client = AsyncModbusSerialClient(
            line.serial.device, framer=FramerType.RTU, baudrate=line.serial.baudrate,
            parity=_PARITIES[line.serial.parity], stopbits=line.serial.stopbits,
            timeout=timeout_s, retries=0, reconnect_delay=0,
        )  # fmt: skip
    else:
        client = AsyncModbusTcpClient(
            line.host, port=line.port, framer=FramerType.RTU, timeout=timeout_s, retries=0,
            reconnect_delay=0,
        )  # fmt: skip
    client.ctx.framer = _RtuFramer(client.ctx.framer.decoder)
    return client


def _heed_cancellation() -> None:
    """Raise the cancellation that the library lost, if it lost one.

    `asyncio.wait_for` of Python 3.11 returns the answer when it meets the cancellation, and
    whoever polls in a loop would go on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
