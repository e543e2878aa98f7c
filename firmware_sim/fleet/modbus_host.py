"""Serves the Modbus units of a fleet: one process, light protocols, ports as in the field.

A unit with a port of its own is unit 1 there; behind a port that several share they are
units 1, 2, 3 and so on, as behind a gateway.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple, cast

from firmware_sim.fleet.core import STEP_S
from firmware_sim.fleet.modbus_fleet import ModbusFleet, serial_of
from firmware_sim.fleet.stats import Stats

_HEADER: Final = struct.Struct(">HHHB")
_FRAME: Final = struct.Struct(">HHHBB")
_READ: Final = 3
_LEAST, _MOST = 2, 254
"""What the length of a frame may be: unit and PDU (MODBUS Messaging on TCP/IP V1.0b, 3.1.3)."""
_TICK_S: Final = 0.05
_SWEEP_S: Final = 1.0
_STEPS: Final = 5
MOST_UNITS: Final = 247
"""Unit numbers behind one port."""


class Place(NamedTuple):
    """Where a unit is found."""

    port: int
    unit: int


class Line(asyncio.Protocol):
    """One connection to the units behind one port."""

    __slots__ = ("_first", "_host", "_rest", "_transport")

    def __init__(self, host: ModbusHost, first: int) -> None:
        """`first`: number in the fleet of unit 1 behind this port."""
        self._host = host
        self._first = first
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve."""
        self._transport = cast("asyncio.Transport", transport)
        self._host.opened(self._first, self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Nobody is answered any more."""
        self._transport = None
        self._host.closed(self._first, self)

    def data_received(self, data: bytes) -> None:
        """Answer whole requests; answers that are not late go out in one write."""
        data = self._rest + data
        at, out = 0, []
        while len(data) - at >= _FRAME.size:
            transaction, protocol, length, number, function = _FRAME.unpack_from(data, at)
            if protocol or not _LEAST <= length <= _MOST:
                self.abort()
                return
            end = at + 6 + length
            if end > len(data):
                break
            found = self._host.answer(self._first, number, function, data[at + 8 : end])
            at = end
            if found is None:
                continue
            late, pdu = found
            reply = _HEADER.pack(transaction, 0, len(pdu) + 1, number) + pdu
            if late:
                asyncio.get_running_loop().call_later(late, self._write, reply)
            else:
                out.append(reply)
        self._rest = data[at:]
        self._write(b"".join(out))

    def abort(self) -> None:
        """End the connection without a goodbye."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


class ModbusHost:
    """Listeners of all units, and their steps."""

    def __init__(
        self, fleet: ModbusFleet, *, clock: Callable[[], float], host: str, first_port: int,
        units_per_port: int, stats: Stats,
    ) -> None:  # fmt: skip
        """`clock`: seconds since the start; `first_port`: others follow it, 0 = free ports."""
        self._clock = clock
        self._fleet = fleet
        self._host = host
        self._first_port = first_port
        self._per_port = units_per_port
        self._stats = stats
        self._lines: dict[int, set[Line]] = {}
        self._connections = 0
        self.places: dict[str, Place] = {}
        """Where each unit is found, once `listen` has come back."""

    async def run(self, stop: asyncio.Event, *, listening: asyncio.Event) -> None:
        """Serve until `stop`."""
        async with AsyncExitStack() as stack:
            for first in range(0, len(self._fleet.population), self._per_port):
                await self._listen(first, stack)
            listening.set()
            await self._steps(stop)
            for lines in self._lines.values():
                for line in list(lines):
                    line.abort()

    def ready(self) -> dict[str, Any]:
        """Where the units are, as the ready file of the simulated day says it."""
        return {
            device: {"host": self._host, "port": place.port, "unit": place.unit,
                     "serial": serial_of(device)}
            for device, place in self.places.items()
        }  # fmt: skip

    def answer(
        self, first: int, number: int, function: int, body: bytes
    ) -> tuple[float, bytes] | None:  # fmt: skip
        """Ask the unit `number` behind a port; nobody answers for one that is not there."""
        behind = min(self._per_port, len(self._fleet.population) - first)
        if not 1 <= number <= behind:
            return None
        if function == _READ:
            self._stats.reads += 1
        else:
            self._stats.commands += 1
        return self._fleet.answer(first + number - 1, function, body)

    def opened(self, first: int, line: Line) -> None:
        """A connection came; a port whose only unit is booting takes none."""
        self._lines.setdefault(first, set()).add(line)
        self._connections += 1
        self._stats.connects += 1
        if self._per_port == 1 and self._fleet.away(first):
            line.abort()

    def closed(self, first: int, line: Line) -> None:
        """A connection is gone."""
        self._lines[first].discard(line)
        self._connections -= 1

    async def _listen(self, first: int, stack: AsyncExitStack) -> None:
        port = self._first_port and self._first_port + first // self._per_port
        server = await asyncio.get_running_loop().create_server(
            lambda: Line(self, first), self._host, port
        )
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        last = min(first + self._per_port, len(self._fleet.population))
        for index in range(first, last):
            self.places[self._fleet.population.ids[index]] = Place(port, index - first + 1)

    async def _steps(self, stop: asyncio.Event) -> None:
        swept = 0.0
        while not stop.is_set():
            now = self._clock()
            for _ in range(_STEPS):
                if self._fleet.core.at + STEP_S > now:
                    break
                for unit, down_s in self._fleet.step():
                    self._drop(unit, down_s)
            if now - swept >= _SWEEP_S:
                swept = now
                self._stats.write(now, up=self._connections)
            await asyncio.sleep(_TICK_S)

    def _drop(self, unit: int, down_s: float) -> None:
        """End a unit's connections; of one that boots (`down_s`) only where they are its own.

        Behind a gateway that units share, the gateway goes on while one of them boots.
        """
        if self._per_port == 1 or not down_s:
            for line in list(self._lines.get(unit - unit % self._per_port, ())):
                self._stats.losses += 1
                line.abort()
