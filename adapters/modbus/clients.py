"""The library's client of each kind of line; none of them repeats or reconnects by itself."""

from __future__ import annotations

from typing import Final

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.client.base import ModbusBaseClient
from pymodbus.framer import FramerRTU, FramerSocket, FramerType
from pymodbus.framer.base import FramerBase
from pymodbus.pdu import ModbusPDU

from adapters.modbus.lines import Line, Parity

_CRC_BYTES: Final = 2
_PARITIES: Final[dict[Parity, str]] = {"even": "E", "odd": "O", "none": "N"}


class _Bounded(FramerBase):
    """Looks for an answer in so many bytes, and throws away what goes on without one.

    The library searches all that is unread again with each byte that comes, and copies it for
    each frame that nobody waits for: noise without end would stop every other line. The
    request has no answer then, and the connection is made anew.
    """

    most: int

    def handleFrame(  # noqa: N802 - the library's name
        self, data: bytes, exp_devid: int, exp_tid: int
    ) -> tuple[int, ModbusPDU | None]:
        used, found = super().handleFrame(data[: self.most], exp_devid, exp_tid)
        return (used, found) if found or len(data) <= self.most else (len(data), None)


class _RtuFramer(_Bounded, FramerRTU):
    """The library's, which takes what follows a frame for a part of it and throws it away.

    What follows another unit's late answer may be the answer that is waited for.
    """

    most = 512
    """The longest frame has 256 (MODBUS over Serial Line V1.02, section 2.5.1)."""

    def decode(self, data: bytes) -> tuple[int, int, int, bytes]:
        used, unit, transaction, pdu = super().decode(data)
        if pdu:
            used = data.find(bytes([unit]) + pdu) + 1 + len(pdu) + _CRC_BYTES
        return used, unit, transaction, pdu


class _SocketFramer(_Bounded, FramerSocket):
    """The library's."""

    most = 4_096
    """The longest frame has 260 (MODBUS Messaging on TCP/IP V1.0b, section 3.1.2)."""


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
    framed = _RtuFramer if line.framed_by_silence else _SocketFramer
    client.ctx.framer = framed(client.ctx.framer.decoder)
    return client
