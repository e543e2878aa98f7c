"""One Modbus TCP connection, one request at a time.

An answer counts when its transaction number is the one of the request that waits, and is
usable when unit and function code are as well. Numbers go on over new connections, so that
nothing that comes late is taken for an answer to something else. Never repeats anything.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from adapters.modbus.batch import Batch
from adapters.modbus.client import NoAnswer
from adapters.modbus.frames import FrameError, join, split

_NUMBERS: Final = 0x1_0000
_FUNCTION: Final = 0x7F
"""The function code without the bit of a refusal."""
_ENDED: Final = "the connection has ended"


class TcpClient(asyncio.Protocol):
    """The client's side of one connection; not connected yet."""

    def __init__(
        self, host: str, port: int, timeout_s: float, batch: Batch, transaction: int = 0
    ) -> None:
        """`timeout_s`: for connecting and for each answer; `batch`: of this event loop.

        `transaction`: the number that was used last.
        """
        self._batch = batch
        self.transaction = transaction
        self.answer: asyncio.Future[bytes] | None = None
        """What the request that was sent last waits for."""
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._unit = self._function = 0
        """Of the last request."""
        self._deadline = 0.0
        """Loop time until which the answer is waited for."""
        self._look: asyncio.TimerHandle | None = None

    @property
    def connected(self) -> bool:
        """Whether requests can be sent."""
        return self._transport is not None

    async def connect(self) -> bool:
        """Make the connection; raises OSError or TimeoutError when it cannot be had."""
        async with asyncio.timeout(self._timeout_s):
            await self._loop.create_connection(lambda: self, self._host, self._port)
        return self.connected

    def exchange(self, unit: int, pdu: bytes) -> asyncio.Future[bytes]:
        """Send a request; the answer's PDU, or NoAnswer."""
        answer = self.answer = self._loop.create_future()
        if self._transport is None:
            answer.set_exception(NoAnswer(_ENDED))
            return answer
        number = self.transaction = (self.transaction + 1) % _NUMBERS
        self._unit, self._function = unit, pdu[0]
        self._deadline = self._loop.time() + self._timeout_s
        if self._look is None:
            self._look = self._loop.call_at(self._deadline, self._waited)
        self._batch.send(self._transport, join(number, unit, pdu))
        return answer

    def close(self) -> None:
        """End the connection; what is still waited for does not come."""
        transport, self._transport = self._transport, None
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if transport is not None:
            transport.abort()  # what was not sent yet must not be sent later
        self._fail(_ENDED)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Requests may be sent."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        """Look at it when everything that is in has been received."""
        self._batch.receive(self._take, data)

    def _take(self, data: bytes) -> None:
        """Take the answer; whatever else comes was answered too late."""
        if self._rest:
            data = self._rest + data
        try:
            frames, self._rest = split(data)
        except FrameError as error:
            self._rest = b""
            self._fail(str(error))
            self.close()
            return
        for number, unit, pdu in frames:
            answer = self.answer
            if number != self.transaction or answer is None or answer.done():
                continue
            if unit == self._unit and pdu[0] & _FUNCTION == self._function:
                answer.set_result(pdu)
            else:
                self._fail(f"the answer is one of unit {unit} to function {pdu[0] & _FUNCTION}")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the port's
        """Whoever waits is told."""
        self.close()

    def _fail(self, why: str) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(NoAnswer(why))

    def _waited(self) -> None:
        """One timer for many requests: it looks again where the next one began meanwhile."""
        self._look = None
        if self.answer is None or self.answer.done():
            return
        if self._deadline > self._loop.time():
            self._look = self._loop.call_at(self._deadline, self._waited)
        else:
            self._fail(f"nothing came within {self._timeout_s:g} s")
