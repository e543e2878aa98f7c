"""One Modbus line, shared by the units behind it: TCP, RTU on a serial port, RTU over TCP.

Requests go one at a time: commands before polls. A unit that does not answer opens its
circuit breaker, so that its neighbours lose at most one timeout per back-off. After any
timeout the connection is made anew, because a late reply would be taken for the answer
to the next request. RTU has no transaction numbers: there the first request after a timeout
is one that a late reply cannot fit, and its answer is thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, Literal, TypeVar

from pymodbus.client.base import ModbusBaseClient
from pymodbus.exceptions import ModbusException

from adapters.modbus.breaker import Breaker
from adapters.modbus.clients import make_client
from adapters.modbus.lines import Line
from adapters.modbus.turns import COMMAND, POLL, Turns
from marketplace_core.errors import FlexwayError

__all__ = ["COMMAND", "POLL", "LineLink", "LinkError", "ModbusLink", "UnitDown"]

T = TypeVar("T")
Table = Literal["holding", "input"]
_MOST_REGISTERS: Final = 120
"""Registers of one read; the protocol allows 125."""
_READ: Final[dict[Table, int]] = {"holding": 3, "input": 4}
_WRITE_ONE: Final = 6
_WRITE: Final = 16
_ACKNOWLEDGE: Final = 5
"""Taken and not done yet: it may still come into force."""
_NO_PATH: Final = 10
"""A gateway has no way to the unit: it was not sent."""
_NO_ANSWER: Final = 11
"""A gateway sent it on and the unit kept silent: it may have been carried out."""


class LinkError(FlexwayError):
    """A request that got no usable answer."""

    def __init__(self, message: str, *, exception_code: int | None = None) -> None:
        """`exception_code` is the device's own refusal (Modbus Application Protocol, section 7)."""
        super().__init__(message)
        self.exception_code = exception_code


class UnitDown(LinkError):  # noqa: N818 - a state of the unit, not a fault of this request
    """Nothing was sent: the unit's breaker is open or the line cannot be had."""


class LineLink:
    """Serialises requests to the units of one line."""

    def __init__(self, line: Line, *, timeout_s: float, monotonic: Callable[[], float]) -> None:
        """`timeout_s`: wall seconds that one request may take; never retried here.

        On a serial line the time that the bytes themselves take comes on top.
        """
        self.line = line
        self._timeout_s = timeout_s + line.exchange_s
        self._monotonic = monotonic
        self._client: ModbusBaseClient | None = None
        self._transaction = 0
        self._breakers: dict[int, Breaker] = {}
        self._turns = Turns()
        self._free_at = 0.0
        """Monotonic: the line's own silence, or another master's turn, lasts until then."""
        self._release: asyncio.TimerHandle | None = None
        self._most: dict[int, int] = {}
        self._outstanding: dict[int, tuple[int, int]] = {}
        """RTU: address and registers of what a unit may still answer late; 0 for a write."""
        self.connections = 0
        """How often the connection was made: identity is checked anew after each."""

    def limit(self, unit: int, registers: int) -> None:
        """Read no more registers of a unit in one request; what is longer takes several."""
        self._most[unit] = registers

    async def read(
        self, unit: int, address: int, count: int, lane: int = POLL, *, table: Table = "holding"
    ) -> list[int]:
        """Registers; raises LinkError."""
        registers: list[int] = []
        while len(registers) < count:
            part = min(self._most.get(unit, _MOST_REGISTERS), count - len(registers))
            start = address + len(registers)
            registers += await self._hold(lane, partial(self._read, unit, start, part, table))
        return registers

    async def write(
        self, unit: int, address: int, values: Sequence[int], *, connection: int | None = None,
        single: bool = False,
    ) -> None:  # fmt: skip
        """Write registers in one request; raises LinkError. UnitDown = nothing was written.

        `connection`: the one (by `connections`) on which the unit is known; on another nothing
        is written. `single`: one register, by the function of old that writes no more.
        """
        work = partial(self._write, unit, address, list(values), connection, single=single)
        await self._hold(COMMAND, work)

    def command(self) -> AbstractContextManager[None]:
        """All that belongs to one command: no poll comes between its requests."""
        return self._turns.command()

    def down(self, unit: int) -> bool:
        """Whether the unit's breaker is open."""
        return self._breaker(unit).open_until > self._monotonic()

    def close(self) -> None:
        """Close the connection."""
        self._keep()
        if self._client is not None:
            self._transaction = self._client.ctx.next_tid
            self._client.close()
            self._client = None
            if self.line.sharing == "release":
                self._free_at = max(self._free_at, self._monotonic() + self.line.gap_s)

    async def _hold(self, lane: int, work: Callable[[], Awaitable[T]]) -> T:
        self._keep()
        try:
            return await self._turns.hold(lane, self._pause, work)
        finally:
            if self._turns.idle and self._client is not None and self.line.sharing == "release":
                loop = asyncio.get_running_loop()
                self._release = loop.call_later(self.line.release_after_s, self.close)

    def _keep(self) -> None:
        """The connection is wanted: it is not given up now."""
        if self._release is not None:
            self._release.cancel()
            self._release = None

    async def _pause(self) -> bool:
        """Wait until the line is free to be used; whether that took any time."""
        left = self._free_at - self._monotonic()
        if left <= 0:
            return False
        await asyncio.sleep(left)
        return True

    async def _read(self, unit: int, address: int, count: int, table: Table) -> list[int]:
        client = await self._connect(unit)
        if unit in self._outstanding:
            await self._resynchronise(client, unit)
        return await self._registers(client, unit, address, count, table)

    async def _registers(
        self, client: ModbusBaseClient, unit: int, address: int, count: int,
        table: Table = "holding",
    ) -> list[int]:  # fmt: skip
        read = client.read_holding_registers
        if table == "input":
            read = client.read_input_registers
        request = read(address, count=count, device_id=unit)
        answer = await self._ask(unit, request, (address, count))
        registers = list(getattr(answer, "registers", ()))
        if answer.function_code != _READ[table] or len(registers) != count:
            words = f"{len(registers)} registers came instead of {count}"
            raise self._astray(unit, words, (address, count))
        return registers

    async def _write(
        self, unit: int, address: int, values: list[int], connection: int | None,
        *, single: bool,
    ) -> None:  # fmt: skip
        client = await self._connect(unit)
        if connection not in {None, self.connections}:
            raise UnitDown(f"{self.line.name} was connected anew: who is there was not checked")
        if unit in self._outstanding:
            await self._resynchronise(client, unit)
        if single:
            (value,) = values
            request, wanted = client.write_register(address, value, device_id=unit), values
        else:
            request = client.write_registers(address, values, device_id=unit)
            wanted = [len(values)]
        answer = await self._ask(unit, request, (address, 0))
        echoed = getattr(answer, "registers", []) if single else [getattr(answer, "count", -1)]
        told = (answer.function_code, getattr(answer, "address", -1), list(echoed))
        if told != (_WRITE_ONE if single else _WRITE, address, wanted):
            raise self._astray(unit, "the answer is one to another request", (address, 0))

    async def _resynchronise(self, client: ModbusBaseClient, unit: int) -> None:
        """Read something of another length than what may come late; UnitDown when that came."""
        address, count = self._outstanding[unit]
        try:
            await self._registers(client, unit, address, 2 if count == 1 else 1)
        except LinkError as error:
            if error.exception_code is None:
                raise UnitDown(f"{error}: not asked for more") from error
        await self._pause()

    async def _connect(self, unit: int) -> ModbusBaseClient:
        if self.down(unit):
            raise UnitDown(f"unit {unit} did not answer lately: not asked again yet")
        if self._client is not None and self._client.connected:
            return self._client
        self.close()
        client = make_client(self.line, self._timeout_s)
        why = ""
        try:
            connected = await client.connect()
        except Exception as error:  # noqa: BLE001 - a serial driver raises what it likes
            connected, why = False, f": {error}"
        if not connected:
            _heed_cancellation()
            client.close()
            raise UnitDown(f"{self.line.name} cannot be reached{why}")
        client.ctx.next_tid = self._transaction  # an old answer fits no request of this connection
        self._client = client
        self.connections += 1
        return client

    async def _ask(self, unit: int, request: Awaitable[Any], asked: tuple[int, int]) -> Any:
        try:
            answer = await request
        except (ModbusException, OSError, TimeoutError) as error:
            _heed_cancellation()
            self._failed(unit, asked)
            raise LinkError(f"unit {unit} gave no answer: {error}") from error
        except asyncio.CancelledError:
            if self.line.framed_by_silence:
                self._abandon(unit, asked)
            raise
        finally:
            self._free_at = max(self._free_at, self._monotonic() + self.line.silence_s)
        _heed_cancellation()
        self._outstanding.pop(unit, None)
        code = getattr(answer, "exception_code", 0)
        if code in {_NO_PATH, _NO_ANSWER}:
            self._breaker(unit).failed(self._monotonic())
            kind = UnitDown if code == _NO_PATH else LinkError
            raise kind(f"the gateway of {self.line.name} gets no answer from unit {unit} ({code})")
        self._breaker(unit).answered()
        if code == _ACKNOWLEDGE:
            raise LinkError(f"unit {unit} took the request and has not done it yet")
        if code:
            raise LinkError(f"unit {unit} refuses with exception {code}", exception_code=code)
        return answer

    def _astray(self, unit: int, message: str, asked: tuple[int, int]) -> LinkError:
        """An answer that cannot belong to the request: the next one would not either."""
        self._failed(unit, asked)
        return LinkError(message)

    def _failed(self, unit: int, asked: tuple[int, int]) -> None:
        self._breaker(unit).failed(self._monotonic())
        self._abandon(unit, asked)

    def _abandon(self, unit: int, asked: tuple[int, int]) -> None:
        """The answer may come later than anybody waits for it."""
        self.close()
        if self.line.framed_by_silence:
            self._outstanding[unit] = asked

    def _breaker(self, unit: int) -> Breaker:
        return self._breakers.setdefault(unit, Breaker())


class ModbusLink(LineLink):
    """A Modbus TCP connection that is held."""

    def __init__(
        self, host: str, port: int, *, timeout_s: float, monotonic: Callable[[], float]
    ) -> None:
        """As LineLink, for a host and a port."""
        line = Line(host=host, port=port)
        super().__init__(line, timeout_s=timeout_s, monotonic=monotonic)


def _heed_cancellation() -> None:
    """Raise the cancellation that the library lost, if it lost one.

    `asyncio.wait_for` of Python 3.11 returns the answer when it meets the cancellation, and
    whoever polls in a loop would go on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
