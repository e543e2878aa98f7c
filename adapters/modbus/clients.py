"""The client of each kind of line."""

from __future__ import annotations

from adapters.modbus.batch import Batch
from adapters.modbus.client import Client
from adapters.modbus.lines import Line
from adapters.modbus.rtu import RtuClient
from adapters.modbus.tcp import TcpClient


def make_client(line: Line, timeout_s: float, batch: Batch, transaction: int = 0) -> Client:
    """A client that is not connected yet; `timeout_s` is for connecting and for each answer.

    `transaction`: the number that was used last on the line; TCP goes on from there.
    """
    if line.framed_by_silence:
        return RtuClient(line, timeout_s)
    return TcpClient(line.host, line.port, timeout_s, batch, transaction)
