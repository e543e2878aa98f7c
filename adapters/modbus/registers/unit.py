"""One device behind a link, read and written by its register map."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import msgspec

from adapters.modbus.control import Control
from adapters.modbus.frames import WRITE_ONE
from adapters.modbus.link import COMMAND, POLL, LineLink
from adapters.modbus.reads import ReadLimits, ReadPlanError, Span, plan_reads
from adapters.modbus.registers.codec import Value, decode, encode
from adapters.modbus.registers.definition import (
    DevicePoint,
    MapControl,
    RegisterError,
    RegisterMap,
    Table,
)
from adapters.modbus.unit import PreparedWrite, send_in_order

_KW = {"W": 0.001, "kW": 1.0}
_KWH = {"Wh": 0.001, "kWh": 1.0}


class Measured(msgspec.Struct, frozen=True):
    """What a device measures."""

    power_kw: float | None
    """Injection positive."""
    stored_kwh: float | None = None
    register_kwh: float | None = None
    """Export minus import."""


class RegisterUnit:
    """Reads and writes points by name."""

    def __init__(
        self, link: LineLink, unit: int, device: RegisterMap, *, limits: ReadLimits,
        monotonic: Callable[[], float], control: MapControl | None = None, sign: int = 1,
    ) -> None:  # fmt: skip
        """`sign`: -1 where the device is mounted the other way round."""
        self.link = link
        self.number = unit
        self.device = device
        self._limits = limits
        self._monotonic = monotonic
        self._control = control
        self._sign = sign
        self._free_at = 0.0
        self._known_on = self._informed_on = -1

    async def verify(self, serial: str) -> None:
        """Check that it is the device, once per connection.

        RegisterError when it is another, or does not say its serial number and `serial` is given.
        """
        if self._known_on == self.link.connections:
            return
        identity = self.device.identity
        if serial and identity.serial is None:
            raise RegisterError(f"{self.device.title} shows no serial number: leave serial out")
        names = [expected.point for expected in identity.expect]
        names += [identity.serial] if serial and identity.serial is not None else []
        values = await self.points(names, COMMAND)
        for expected in identity.expect:
            told = values.get(expected.point)
            if told not in expected.values:
                raise RegisterError(
                    f"{expected.point} is {told!r}: this is no {self.device.title}"
                )  # fmt: skip
        found = values.get(identity.serial or "")
        if serial and str(found) != serial:
            raise RegisterError(f"serial number {found!r} instead of {serial!r}")
        if names:
            self._known_on = self.link.connections

    async def inform(self, control: Control) -> None:
        """Let a control learn what it needs of the device, once per connection."""
        if self._informed_on == self.link.connections:
            return
        control.learn({control.model: await self.read(control.model, COMMAND)})
        self._informed_on = self.link.connections

    async def read(self, _model: int, /, lane: int = POLL) -> dict[str, Value]:
        """Every point of the control; a register map has no models."""
        return await self.points(self._control.points if self._control is not None else (), lane)

    async def points(self, names: Iterable[str], lane: int = POLL) -> dict[str, Value]:
        """Points by name; None = not available. LinkError, RegisterError as they come."""
        words = await self._words(names, lane)
        return {name: decode(self.device.points[name], held) for name, held in words.items()}

    async def measure(self, *, slow: bool, capacity_kwh: float | None) -> Measured:
        """Power, and with `slow` what changes slowly.

        `capacity_kwh`: of a full battery; without it the device's own counts, where it says one.
        """
        told = self.device.measurements
        slowly = (told.soc, told.capacity, told.energy_import, told.energy_export) if slow else ()
        names = (*told.power.points, *(name for name in slowly if name is not None))
        values = await self.points(names)
        parts = [self._number(values, name, _KW) for name in told.power.points]
        power = None
        if None not in parts:
            power = self._sign * told.power.meter_sign * sum(part or 0.0 for part in parts)
        return Measured(
            power_kw=power, stored_kwh=self._stored(values, capacity_kwh),
            register_kwh=self._energy(values),
        )  # fmt: skip

    async def prepare(self, _model: int, /, values: Mapping[str, float]) -> PreparedWrite:
        """Encode points; nothing is written.

        What a device may keep in flash is left out where it holds the number already, unless its
        write restarts the lease. LinkError and RegisterError as they come.
        """
        control = self._control
        names = control.points if control is not None else ()
        restarts = control.restarts if control is not None else None
        if control is not None and control.lease.kind == "heartbeat":
            names = () if list(values) == [control.lease.point] else names
        # Read in any other case: a write goes out on a connection on which the device answered.
        held = await self._words(names, COMMAND)
        requests: list[tuple[int, list[int]]] = []
        wear = 0
        for name, value in values.items():
            point = self.device.points[name]
            words = encode(point, value)
            kept = point.kept_in != "ram"
            if kept and name != restarts and held.get(name) == words:
                continue
            requests.append((point.address, words))
            wear += kept
        return PreparedWrite(tuple(requests), self.link.connections, wear)

    async def send(self, prepared: PreparedWrite) -> None:
        """Write what was prepared, in order; raises as `send_in_order`."""

        async def write(address: int, words: list[int]) -> None:
            await self._pause()
            try:
                await self.link.write(
                    self.number, address, words, connection=prepared.connection,
                    single=self.device.write_function == WRITE_ONE,
                )  # fmt: skip
            finally:
                self._asked()

        await send_in_order(prepared, write)
        if self._control is not None and self._control.settle_s and prepared.requests:
            await asyncio.sleep(self._control.settle_s)

    async def _words(self, names: Iterable[str], lane: int) -> dict[str, list[int]]:
        """Registers of points, in as few reads as the device's limits allow."""
        points = {name: self.device.points[name] for name in names}
        found: dict[tuple[Table, int], int] = {}
        tables: tuple[Table, ...] = ("holding", "input")
        for table in tables:
            spans = [_span(point) for point in points.values() if point.table == table]
            try:
                plan = plan_reads(spans, self._limits)
            except ReadPlanError as error:
                raise RegisterError(str(error)) from error
            for span in plan:
                registers = await self._read(span, lane, table)
                found.update(((table, span.start + n), word) for n, word in enumerate(registers))
        return {
            name: [found[point.table, at] for at in range(point.address, _span(point).end)]
            for name, point in points.items()
        }

    async def _read(self, span: Span, lane: int, table: Table) -> list[int]:
        await self._pause()
        try:
            return await self.link.read(self.number, span.start, span.count, lane, table=table)
        finally:
            self._asked()

    async def _pause(self) -> None:
        left = self._free_at - self._monotonic()
        if left > 0:
            await asyncio.sleep(left)

    def _asked(self) -> None:
        self._free_at = self._monotonic() + self.device.pause_s

    def _stored(self, values: Mapping[str, Value], capacity_kwh: float | None) -> float | None:
        told = self.device.measurements
        percent = values.get(told.soc or "")
        if capacity_kwh is None and told.capacity is not None:
            capacity_kwh = self._number(values, told.capacity, _KWH)
        if not isinstance(percent, int | float) or capacity_kwh is None:
            return None
        return percent / 100.0 * capacity_kwh

    def _energy(self, values: Mapping[str, Value]) -> float | None:
        """A device that counts one way only goes one way only."""
        told = self.device.measurements
        names = (told.energy_export, told.energy_import)
        parts = [self._number(values, name, _KWH) for name in names if name is not None]
        if not parts or None in parts:
            return None
        exported, imported = (
            0.0 if name is None else self._number(values, name, _KWH) or 0.0 for name in names
        )
        return self._sign * (exported - imported)

    def _number(
        self, values: Mapping[str, Value], name: str, factors: Mapping[str, float]
    ) -> float | None:
        value = values.get(name)
        factor = factors[self.device.points[name].unit]
        return value * factor if isinstance(value, int | float) else None


def _span(point: DevicePoint) -> Span:
    return Span(point.address, point.address + point.size)
