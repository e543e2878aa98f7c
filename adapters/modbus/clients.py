"""The library's client of each kind of line; none of them repeats or reconnects by itself."""

from __future__ import annotations

from typing import Final

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.client.base import ModbusBaseClient
from pymodbus.framer import FramerRTU, FramerType

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


def make_client(line: Line, timeout_s: float) -> ModbusBaseClient:
    """A client that is not connected yet; `timeout_s` is for connecting and for each answer."""
    client: ModbusBaseClient
    if line.serial is not None:
        client = AsyncModbusSerialClient(
            line.serial.device, framer=FramerType.RTU, baudrate=line.serial.baudrate,
            parity=_PARITIES[line.serial.parity], stopbits=line.serial.stopbits,
            timeout=timeout_s, retries=0, reconnect_delay=0,
        )  # fmt: skip
    else:
        framer = FramerType.SOCKET if line.transport == "tcp" else FramerType.RTU
        client = AsyncModbusTcpClient(
            line.host, port=line.port, framer=framer, timeout=timeout_s, retries=0,
            reconnect_delay=0,
        )  # fmt: skip
    if line.framed_by_silence:
        client.ctx.framer = _RtuFramer(client.ctx.framer.decoder)
    return client
