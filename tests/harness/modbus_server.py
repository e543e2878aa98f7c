"""A Modbus server whose answers can be lost, late, wrong or broken, on TCP and on a serial line."""

from __future__ import annotations

import asyncio
import enum
import os
import pty
import tty
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from adapters.modbus.lines import Line, SerialPort, Transport
from firmware_sim.servers.modbus import Unit, respond
from tests.harness.modbus_frames import Framing, Mbap, Request, Rtu

HOST = "127.0.0.1"


class Fault(enum.Enum):
    DROPPED = "dropped"
    """Carried out; the answer is lost."""
    DELAYED = "delayed"
    """The answer comes long after the timeout, on the connection it was asked on."""
    LATE = "late"
    """The answer comes when the next request has been sent, before that one's."""
    WRONG_UNIT = "wrong_unit"
    WRONG_TRANSACTION = "wrong_transaction"
    GARBAGE = "garbage"
    TRUNCATED = "truncated"
    HALF_CLOSED = "half_closed"
    """Carried out; instead of an answer the server's half of the connection ends."""
    RESET = "reset"
    ILLEGAL_VALUE = "exception 3"
    DEVICE_FAILURE = "exception 4"
    ACKNOWLEDGE = "exception 5"
    """Taken, to be done later; done."""
    BUSY = "exception 6"
    NO_PATH = "exception 10"
    NO_ANSWER = "exception 11"
    """The gateway sent it on, the unit did it, its answer was lost behind the gateway."""

    @property
    def exception(self) -> int:
        return int(self.value.split()[1]) if self.value.startswith("exception") else 0

    @property
    def done(self) -> bool:
        """Whether the unit carries the request out."""
        return not self.exception or self in {Fault.ACKNOWLEDGE, Fault.NO_ANSWER}


@dataclass
class Connection:
    send: Callable[[bytes], None]
    end: Callable[[], None]
    abort: Callable[[], None]
    buffer: bytes = b""


@dataclass
class Faulty:
    """Units behind one line, and what goes wrong on it."""

    units: Mapping[int, Unit]
    framing: Framing
    delay_s: float
    choose: Callable[[Request], Fault | None] = lambda _request: None
    """Asked for every request, in the order they come."""
    requests: list[Request] = field(default_factory=list)
    opened: list[Connection] = field(default_factory=list)
    """Every connection, in the order they came."""
    _late: list[bytes] = field(default_factory=list)

    def received(self, connection: Connection, data: bytes) -> None:
        connection.buffer += data
        while True:
            request, connection.buffer = self.framing.split(connection.buffer)
            if request is None:
                return
            self._answer(connection, request)

    def _answer(self, connection: Connection, request: Request) -> None:
        self.requests.append(request)
        while self._late:
            connection.send(self._late.pop(0))
        unit = self.units.get(request.unit)
        if unit is None:
            return
        fault = self.choose(request)
        pdu = b""
        if fault is None or fault.done:
            pdu = respond(unit, request.function, request.body)
        if fault is not None and fault.exception:
            pdu = bytes([request.function | 0x80, fault.exception])
        number = request.unit + (fault is Fault.WRONG_UNIT)
        transaction = request.transaction ^ (0x5A5A if fault is Fault.WRONG_TRANSACTION else 0)
        self._send(connection, fault, self.framing.frame(request, number, transaction, pdu))

    def _send(self, connection: Connection, fault: Fault | None, frame: bytes) -> None:
        if fault is Fault.DROPPED:
            return
        if fault is Fault.DELAYED:
            asyncio.get_running_loop().call_later(self.delay_s, connection.send, frame)
        elif fault is Fault.LATE:
            self._late.append(frame)
        elif fault is Fault.GARBAGE:
            connection.send(b"\xde\xad\xbe\xef" * 4)
        elif fault is Fault.TRUNCATED:
            connection.send(frame[: len(frame) // 2])
        elif fault is Fault.HALF_CLOSED:
            connection.end()
        elif fault is Fault.RESET:
            connection.abort()
        else:
            connection.send(frame)


class _Tcp(asyncio.Protocol):
    def __init__(self, server: Faulty) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)

        def send(data: bytes) -> None:
            if not transport.is_closing():
                transport.write(data)

        self._connection = Connection(send, transport.write_eof, transport.abort)
        self._server.opened.append(self._connection)

    def data_received(self, data: bytes) -> None:
        self._server.received(self._connection, data)

    def eof_received(self) -> bool:
        return False


@asynccontextmanager
async def serving(server: Faulty, transport: Transport) -> AsyncIterator[Line]:
    """The line on which the server can be reached; its framing has to be the transport's."""
    assert isinstance(server.framing, Mbap if transport == "tcp" else Rtu)
    if transport == "rtu":
        async with _on_a_pty(server) as device:
            # A pseudo-terminal knows no parity; without one there are two stop bits.
            serial = SerialPort(device=device, baudrate=115_200, parity="none", stopbits=2)
            yield Line(transport="rtu", serial=serial)
        return
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Tcp(server), HOST, 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        try:
            yield Line(transport=transport, host=HOST, port=port)
        finally:
            for connection in server.opened:
                connection.abort()
            await asyncio.sleep(0)


@asynccontextmanager
async def _on_a_pty(server: Faulty) -> AsyncIterator[str]:
    """A pair of pseudo-terminals stands for the serial line."""
    ours, theirs = pty.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    here = True

    def send(data: bytes) -> None:
        if here:
            os.write(ours, data)

    connection = Connection(send, lambda: None, lambda: None)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, lambda: server.received(connection, os.read(ours, 4096)))
    try:
        yield os.ttyname(theirs)
    finally:
        here = False
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)
