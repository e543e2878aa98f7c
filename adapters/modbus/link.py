"""One Modbus TCP connection, shared by the units behind it.

Requests go one at a time: commands before polls. A unit that does not answer opens its
circuit breaker, so that its neighbours lose at most one timeout per back-off. After any
timeout the connection is made anew, because a late reply would be taken for the answer
to the next request.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from marketplace_core.errors import FlexwayError

T = TypeVar("T")
COMMAND: Final = 0
POLL: Final = 1
_BACKOFF_BASE_S: Final = 1.0
_BACKOFF_CAP_S: Final = 60.0
_MOST_REGISTERS: Final = 120
"""Registers of one read; the protocol allows 125."""


class LinkError(FlexwayError):
    """A request that got no usable answer."""

    def __init__(self, message: str, *, exception_code: int | None = None) -> None:
        """`exception_code` is the device's own refusal (Modbus Application Protocol, section 7)."""
        super().__init__(message)
        self.exception_code = exception_code


class UnitDown(LinkError):  # noqa: N818 - a state of the unit, not a fault of this request
    """Nothing was sent: the unit's breaker is open or the host cannot be reached."""


class _Breaker:
    def __init__(self) -> None:
        self.failures = 0
        self.open_until = 0.0

    def failed(self, now: float) -> None:
        self.failures += 1
        self.open_until = now + min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2 ** (self.failures - 1))

    def answered(self) -> None:
        self.failures = 0
        self.open_until = 0.0


class ModbusLink:
    """Serialises requests to one host and port."""

    def __init__(
        self, host: str, port: int, *, timeout_s: float, monotonic: Callable[[], float]
    ) -> None:
        """`timeout_s`: wall seconds that one request may take; never retried here."""
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._client: AsyncModbusTcpClient | None = None
        self._breakers: dict[int, _Breaker] = {}
        self._numbers = itertools.count()
        self._turn: asyncio.PriorityQueue[tuple[int, int, asyncio.Future[None]]] = (
            asyncio.PriorityQueue()
        )
        self._busy = False
        self.connections = 0
        """How often the connection was made: identity is checked anew after each."""

    async def read(self, unit: int, address: int, count: int, lane: int = POLL) -> list[int]:
        """Holding registers; raises LinkError."""
        registers: list[int] = []
        while len(registers) < count:
            part = min(_MOST_REGISTERS, count - len(registers))
            start = address + len(registers)
            registers += await self._exclusive(lane, partial(self._read, unit, start, part))
        return registers

    async def write(self, unit: int, address: int, values: Sequence[int]) -> None:
        """Write registers in one request; raises LinkError. UnitDown = nothing was written."""
        await self._exclusive(COMMAND, partial(self._write, unit, address, list(values)))

    def down(self, unit: int) -> bool:
        """Whether the unit's breaker is open."""
        return self._breaker(unit).open_until > self._monotonic()

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _exclusive(self, lane: int, work: Callable[[], Awaitable[T]]) -> T:
        if self._busy:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._turn.put_nowait((lane, next(self._numbers), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()  # it was our turn: the next one gets it
                raise
        self._busy = True
        try:
            return await work()
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while not self._turn.empty():
            _, _, turn = self._turn.get_nowait()
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False

    async def _read(self, unit: int, address: int, count: int) -> list[int]:
        client = await self._connect(unit)
        answer = await self._ask(
            unit, client.read_holding_registers(address, count=count, device_id=unit)
        )
        registers = list(answer.registers)
        if len(registers) != count:
            self._failed(unit)
            raise LinkError(f"{len(registers)} registers came instead of {count}")
        return registers

    async def _write(self, unit: int, address: int, values: list[int]) -> None:
        client = await self._connect(unit)
        await self._ask(unit, client.write_registers(address, values, device_id=unit))

    async def _connect(self, unit: int) -> AsyncModbusTcpClient:
        if self.down(unit):
            raise UnitDown(f"unit {unit} did not answer lately: not asked again yet")
        if self._client is not None and self._client.connected:
            return self._client
        self.close()
        client = AsyncModbusTcpClient(
            self._host, port=self._port, timeout=self._timeout_s, retries=0, reconnect_delay=0
        )
        if not await client.connect():
            client.close()
            raise UnitDown(f"{self._host}:{self._port} cannot be reached")
        self._client = client
        self.connections += 1
        return client

    async def _ask(self, unit: int, request: Awaitable[T]) -> T:
        try:
            answer = await request
        except (ModbusException, OSError, TimeoutError) as error:
            _heed_cancellation()
            self._failed(unit)
            raise LinkError(f"unit {unit} gave no answer: {error}") from error
        _heed_cancellation()
        self._breaker(unit).answered()
        code = getattr(answer, "exception_code", 0)
        if code:
            raise LinkError(f"unit {unit} refuses with exception {code}", exception_code=code)
        return answer

    def _failed(self, unit: int) -> None:
        self._breaker(unit).failed(self._monotonic())
        self.close()

    def _breaker(self, unit: int) -> _Breaker:
        return self._breakers.setdefault(unit, _Breaker())


def _heed_cancellation() -> None:
    """Raise the cancellation that the library lost, if it lost one.

    `asyncio.wait_for` of Python 3.11 returns the answer when it meets the cancellation, and
    whoever polls in a loop would go on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
