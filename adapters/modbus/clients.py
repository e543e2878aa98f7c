"""The library's client of each kind of line; none of them repeats or reconnects by itself."""

from __future__ import annotations

from typing import Final

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.client.base import ModbusBaseClient
from pymodbus.framer import FramerType

from adapters.modbus.lines import Line, Parity

_PARITIES: Final[dict[Parity, str]] = {"even": "E", "odd": "O", "none": "N"}


def make_client(line: Line, timeout_s: float) -> ModbusBaseClient:
    """A client that is not connected yet; `timeout_s` is for connecting and for each answer."""
    if line.serial is not None:
        return AsyncModbusSerialClient(
            line.serial.device, framer=FramerType.RTU, baudrate=line.serial.baudrate,
            parity=_PARITIES[line.serial.parity], stopbits=line.serial.stopbits,
            timeout=timeout_s, retries=0, reconnect_delay=0,
        )  # fmt: skip
    framer = FramerType.SOCKET if line.transport == "tcp" else FramerType.RTU
    return AsyncModbusTcpClient(
        line.host, port=line.port, framer=framer, timeout=timeout_s, retries=0, reconnect_delay=0
    )
