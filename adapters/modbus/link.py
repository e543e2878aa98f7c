"""One Modbus line, shared by the units behind it: TCP, RTU on a serial port, RTU over TCP.

Requests go one at a time: commands before polls. A unit that does not answer opens its
circuit breaker, so that its neighbours lose at most one timeout per back-off. After any
timeout the connection is made anew, because a late reply would be taken for the answer
to the next request. RTU has no transaction numbers: there the first request after a timeout
is one that a late reply cannot fit, and its answer is thrown away.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal

from adapters.modbus.batch import Batch
from adapters.modbus.breaker import Breaker
from adapters.modbus.client import Client, NoAnswer
from adapters.modbus.clients import make_client
from adapters.modbus.frames import (
    READ,
    READ_INPUT,
    REFUSED,
    confirms,
    data_read,
    read_request,
    refusal,
    write_one_request,
    write_request,
)
from adapters.modbus.lines import Line
from adapters.modbus.turns import COMMAND, POLL, Turns
from marketplace_core.errors import FlexwayError

__all__ = ["COMMAND", "POLL", "LineLink", "LinkError", "ModbusLink", "UnitDown"]

Table = Literal["holding", "input"]
_FUNCTIONS: Final[dict[Table, int]] = {"holding": READ, "input": READ_INPUT}
_MOST_REGISTERS: Final = 120
"""Registers of one read; the protocol allows 125."""
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

    def __init__(
        self, line: Line, *, timeout_s: float, monotonic: Callable[[], float],
        batch: Batch | None = None,
    ) -> None:  # fmt: skip
        """`timeout_s`: wall seconds that one request may take; never retried here.

        On a serial line the time that the bytes themselves take comes on top. `batch`: shared
        with the other lines of the event loop.
        """
        self._batch = batch or Batch()
        self.line = line
        self._timeout_s = timeout_s + line.exchange_s
        self._monotonic = monotonic
        self._silence_s = line.silence_s
        self._shared = line.sharing == "release"
        self._client: Client | None = None
        self._transaction = 0
        """The number that TCP used last: an old answer fits no request of a new connection."""
        self._breakers: dict[int, Breaker] = {}
        """Of units that did not answer lately."""
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
            data = await self.read_once(unit, start, part, lane, _FUNCTIONS[table])
            registers += struct.unpack(f">{part}H", data)
        return registers

    async def read_once(
        self, unit: int, address: int, count: int, lane: int = POLL, function: int = READ
    ) -> bytes:
        """Registers of one request, two bytes each; raises LinkError.

        Who plans reads asks here: nothing is done to the registers but to check that they came.
        """
        # What is the rule comes first: the line is free, connected, and nothing is wrong on it.
        if self._release is not None or self._free_at or not self._turns.take(lane):
            await self._begin(lane)
        try:
            client = self._client
            if client is None or not client.connected or self._breakers or self._outstanding:
                client = await self._usable(unit)
            asked = read_request(address, count, function)
            answer = await self._ask(client, unit, asked, (address, count))
            data = data_read(answer, count, function)
            if data is None:
                raise self._not_read(unit, address, count, answer)
            return data
        finally:
            self._turns.pass_on()
            if self._shared:
                self._let_go()

    async def write(
        self, unit: int, address: int, values: Sequence[int], *, connection: int | None = None,
        single: bool = False,
    ) -> None:  # fmt: skip
        """Write registers in one request; raises LinkError. UnitDown = nothing was written.

        `connection`: the one (by `connections`) on which the unit is known; on another nothing
        is written. `single`: one register, by the function of old that writes no more.
        """
        await self._begin(COMMAND)
        try:
            await self._write(unit, address, values, connection, single=single)
        finally:
            self._end()

    def command(self) -> AbstractContextManager[None]:
        """All that belongs to one command: no poll comes between its requests."""
        return self._turns.command()

    def down(self, unit: int) -> bool:
        """Whether the unit's breaker is open."""
        breaker = self._breakers.get(unit)
        return breaker is not None and breaker.open_until > self._monotonic()

    def close(self) -> None:
        """Close the connection."""
        self._keep()
        if self._client is not None:
            self._client.close()
            self._transaction = self._client.transaction
            self._client = None
            if self._shared:
                self._free_at = max(self._free_at, self._monotonic() + self.line.gap_s)

    async def _begin(self, lane: int) -> None:
        """Have the line."""
        self._keep()
        if self._free_at or not self._turns.take(lane):
            try:
                await self._turns.wait(lane, self._pause)
            except asyncio.CancelledError:
                self._let_go()
                raise

    def _end(self) -> None:
        """Hand the line on."""
        self._turns.pass_on()
        if self._shared:
            self._let_go()

    def _let_go(self) -> None:
        """Give the connection up after a while, if nobody wants it."""
        if self._shared and self._turns.idle and self._client is not None:
            self._keep()
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

    async def _write(
        self, unit: int, address: int, values: Sequence[int], connection: int | None, *,
        single: bool,
    ) -> None:  # fmt: skip
        client = await self._connected(unit)
        if connection not in {None, self.connections}:
            raise UnitDown(f"{self.line.name} was connected anew: who is there was not checked")
        await self._resynchronise(client, unit)
        asked = write_one_request(address, *values) if single else write_request(address, values)
        answer = await self._ask(client, unit, asked, (address, 0))
        if answer != asked if single else not confirms(answer, address, len(values)):
            raise self._astray(unit, "the answer is one to another request", (address, 0))

    async def _usable(self, unit: int) -> Client:
        """The connection, with nothing on it that the unit may still say late."""
        client = await self._connected(unit)
        await self._resynchronise(client, unit)
        return client

    async def _resynchronise(self, client: Client, unit: int) -> None:
        """Read something of another length than what may come late; UnitDown when that came."""
        if unit not in self._outstanding:
            return
        address, count = self._outstanding[unit]
        other = 2 if count == 1 else 1
        try:
            answer = await self._ask(client, unit, read_request(address, other), (address, other))
            if data_read(answer, other) is None:
                raise self._not_read(unit, address, other, answer)
        except LinkError as error:
            if error.exception_code is None:
                raise UnitDown(f"{error}: not asked for more") from error
        await self._pause()

    async def _connected(self, unit: int) -> Client:
        if self.down(unit):
            raise UnitDown(f"unit {unit} did not answer lately: not asked again yet")
        if self._client is not None and self._client.connected:
            return self._client
        self.close()
        client = make_client(self.line, self._timeout_s, self._batch, self._transaction)
        why = ""
        try:
            connected = await client.connect()
        except Exception as error:  # noqa: BLE001 - a serial driver raises what it likes
            connected, why = False, f": {error}" if str(error) else ""
        except asyncio.CancelledError:
            client.close()
            raise
        if not connected:
            client.close()
            raise UnitDown(f"{self.line.name} cannot be reached{why}")
        self._client = client
        self.connections += 1
        return client

    async def _ask(self, client: Client, unit: int, pdu: bytes, asked: tuple[int, int]) -> bytes:
        try:
            answer = await client.exchange(unit, pdu)
        except NoAnswer as error:
            self._failed(unit, asked)
            raise LinkError(f"unit {unit} gave no answer: {error}") from error
        except asyncio.CancelledError:
            if self.line.framed_by_silence:
                self._abandon(unit, asked)
            raise
        finally:
            if self._silence_s:
                self._free_at = max(self._free_at, self._monotonic() + self._silence_s)
        if answer[0] & REFUSED or self._outstanding or self._breakers:
            self._outstanding.pop(unit, None)
            if code := refusal(answer):
                raise self._refused(unit, code)
            self._breakers.pop(unit, None)
        return answer

    def _refused(self, unit: int, code: int) -> LinkError:
        if code in {_NO_PATH, _NO_ANSWER}:
            self._breaker(unit).failed(self._monotonic())
            kind = UnitDown if code == _NO_PATH else LinkError
            return kind(f"the gateway of {self.line.name} gets no answer from unit {unit} ({code})")
        self._breakers.pop(unit, None)
        if code == _ACKNOWLEDGE:
            return LinkError(f"unit {unit} took the request and has not done it yet")
        return LinkError(f"unit {unit} refuses with exception {code}", exception_code=code)

    def _not_read(self, unit: int, address: int, count: int, answer: bytes) -> LinkError:
        words = f"{max(0, len(answer) - 2) // 2} registers came instead of {count}"
        return self._astray(unit, words, (address, count))

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
