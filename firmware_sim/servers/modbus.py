"""Simulated SunSpec units behind a Modbus TCP server of our own.

Hand-made on asyncio, sharing no frame or PDU with the adapter, so that independent
implementations meet, and light enough for thousands. Faults are switches on a unit: silent,
late, wrong, refusing.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from adapters.modbus.wire import BASES, END_MODEL, MARKER, encode, load_model

_READ: Final = 3
_READ_INPUT: Final = 4
_WRITE_ONE: Final = 6
_WRITE_MANY: Final = 16
_ILLEGAL_FUNCTION: Final = 1
_ILLEGAL_ADDRESS: Final = 2
_HEADER: Final = struct.Struct(">HHHBB")
_MEASURES: Final = 701
_RUNNING: Final = 3
"""Of 701 InvSt."""
_MPPT: Final = 4
"""Of 103 St: it runs."""
Log = Callable[[Mapping[str, Any]], None]


@dataclass
class Faults:
    """What is wrong with a unit at the moment."""

    silent: bool = False
    """Does not answer."""
    drop_writes: bool = False
    """Answers reads only: a write is carried out and its answer is lost."""
    late_s: float = 0.0
    """Answers after so many seconds."""
    wrong_unit: bool = False
    """Answers in the name of another unit."""
    garbage: bool = False
    """Answers with bytes that are no Modbus."""
    exception: int = 0
    """Refuses writes with this code."""
    ignores: bool = False
    """Acknowledges writes and keeps its registers as they were."""
    no_timer: bool = False
    """Takes the revert time and never counts it down."""


class Unit:
    """Registers of one SunSpec unit, from model 1 to the end marker."""

    def __init__(
        self,
        device_id: str,
        models: Sequence[int],
        *,
        serial: str,
        base: int = BASES[0],
        monotonic: Callable[[], float] = time.monotonic,
        log: Log = lambda _entry: None,
    ) -> None:
        """`log` hears of every read and write of a control model and of every effect."""
        self._base = base
        self.device_id = device_id
        self.faults = Faults()
        self._monotonic = monotonic
        self._log = log
        self._address: dict[int, int] = {}
        self._registers = self._layout([1, *models])
        for name, value in (("Mn", "Flexway Sim"), ("Md", type(self).__name__), ("SN", serial)):
            self._put(1, name, value)

    def read(self, address: int, count: int) -> list[int] | None:
        """Registers, or None when the unit has none there."""
        start = address - self._base
        if not 0 <= start <= start + count <= len(self._registers):
            return None
        self.refresh()
        self._note("read", address, count)
        return self._registers[start : start + count]

    def read_input(self, _address: int, _count: int) -> list[int] | None:
        """Input registers: SunSpec has none."""
        return None

    def write(self, address: int, values: Sequence[int]) -> bool:
        """Store registers and act on them; False when there are none at the address."""
        start = address - self._base
        if not 0 <= start <= start + len(values) <= len(self._registers):
            return False
        self._note("write", address, len(values), list(values))
        if not self.faults.ignores:
            self._registers[start : start + len(values)] = values
            self.written(address)
        return True

    def refresh(self) -> None:
        """Bring timers up to date before registers are read."""

    def written(self, address: int) -> None:
        """Act on registers that were just written."""

    def controls(self) -> range:
        """Addresses of the control model; empty for a unit that cannot be driven."""
        return range(0)

    def _layout(self, models: Sequence[int]) -> list[int]:
        registers = list(MARKER)
        for number in models:
            model = load_model(number)
            self._address[number] = self._base + len(registers)
            body = [0] * model.length
            body[0], body[1] = number, model.length - 2
            registers += body
        return [*registers, END_MODEL, 0]

    def _put(self, number: int, name: str, value: float | str, scale: int = 0) -> None:
        model = load_model(number)
        start = self._address[number] - self._base + model.points[name].offset
        words = encode(model, name, value, scale)
        self._registers[start : start + len(words)] = words

    def _get(self, number: int, name: str) -> int:
        point = load_model(number).points[name]
        start = self._address[number] - self._base + point.offset
        words = self._registers[start : start + point.size]
        data = struct.pack(f">{point.size}H", *words)
        return int.from_bytes(data, "big", signed=point.type.startswith(("int", "sunssf")))

    def _runs(self) -> None:
        """Say that it is on, in the model that measures."""
        if _MEASURES in self._address:
            self._put(_MEASURES, "InvSt", _RUNNING)
        else:
            self._put(103, "St", _MPPT)

    def _range(self, number: int) -> range:
        start = self._address[number]
        return range(start, start + load_model(number).length)

    def _note(self, kind: str, address: int, count: int, values: list[int] | None = None) -> None:
        controls = self.controls()
        if address + count > controls.start and address < controls.stop:
            entry = {"device": self.device_id, "received": kind, "address": address}
            self._log({**entry, "offset": address - controls.start, "values": values})

    def _effect(self, effect: str, **details: object) -> None:
        self._log({"device": self.device_id, "effect": effect, **details})


class BatteryUnit(Unit):
    """Models 701 (measurements), 704 (WSet with its revert timer) and 713 (storage)."""

    def __init__(
        self, device_id: str, *, serial: str, capacity_kwh: float,
        monotonic: Callable[[], float] = time.monotonic, log: Log = lambda _entry: None,
    ) -> None:  # fmt: skip
        super().__init__(device_id, (701, 704, 713), serial=serial, monotonic=monotonic, log=log)
        self._deadline: float | None = None
        self._in_force: tuple[int, int] = (0, 0)
        self._runs()
        self._put(704, "WSetMod", 1)
        self._put(713, "WH_SF", 0)
        self._put(713, "WHRtg", capacity_kwh * 1000.0)
        self._capacity_kwh = capacity_kwh

    def controls(self) -> range:
        """Model 704."""
        return self._range(704)

    def commanded_kw(self) -> float | None:
        """Power it is told to hold now; None = its own behaviour."""
        self.refresh()
        if self._get(704, "WSetEna") != 1:
            return None
        return self._get(704, "WSet") / 1000.0

    def publish(self, *, power_kw: float, soc_kwh: float) -> None:
        """Show measurements; power injection-positive."""
        self._put(701, "W", power_kw * 1000.0)
        self._put(713, "WHAvail", soc_kwh * 1000.0)
        self._put(713, "SoC", max(0.0, 100.0 * soc_kwh / self._capacity_kwh))

    def refresh(self) -> None:
        """Count the revert timer down; revert when it has run out."""
        if self._deadline is None:
            return
        left = self._deadline - self._monotonic()
        self._put(704, "WSetRvrtRem", max(0, round(left)))
        if left > 0:
            return
        self._deadline = None
        self._put(704, "WSetEna", self._get(704, "WSetEnaRvrt"))
        self._put(704, "WSet", self._get(704, "WSetRvrt"))
        self._settle("reverted")

    def written(self, address: int) -> None:
        """A write of the enable point restarts the timer, as the profile says."""
        model = load_model(704)
        offset = address - self._address[704]
        if offset == model.points["WSetEna"].offset:
            seconds = self._get(704, "WSetRvrtTms")
            enabled = self._get(704, "WSetEna") == 1
            counts = enabled and seconds and not self.faults.no_timer
            self._deadline = self._monotonic() + seconds if counts else None
            self._put(704, "WSetRvrtRem", seconds if self._deadline is not None else 0)
        self._settle("set")

    def _settle(self, effect: str) -> None:
        enabled = self._get(704, "WSetEna")
        now = (enabled, self._get(704, "WSet") if enabled else 0)
        if now != self._in_force:
            self._in_force = now
            self._effect(effect, enabled=now[0], power_w=now[1])


class InverterUnit(Unit):
    """Models 103 (inverter) and 123 (WMaxLimPct with its revert timer)."""

    def __init__(
        self, device_id: str, *, serial: str, rated_kw: float,
        monotonic: Callable[[], float] = time.monotonic, log: Log = lambda _entry: None,
    ) -> None:  # fmt: skip
        super().__init__(device_id, (103, 123), serial=serial, monotonic=monotonic, log=log)
        self._runs()
        self._rated_kw = rated_kw
        self._deadline: float | None = None

    def controls(self) -> range:
        """Model 123."""
        return self._range(123)

    def commanded_kw(self) -> float | None:
        """Ceiling it is told to keep; None = none."""
        self.refresh()
        if self._get(123, "WMaxLim_Ena") != 1:
            return None
        return self._get(123, "WMaxLimPct") / 100.0 * self._rated_kw

    def publish(self, *, power_kw: float) -> None:
        """Show measurements; power injection-positive."""
        self._put(103, "W", power_kw * 1000.0)

    def refresh(self) -> None:
        """Disable the limit when its timer has run out."""
        if self._deadline is not None and self._monotonic() >= self._deadline:
            self._deadline = None
            self._put(123, "WMaxLim_Ena", 0)
            self._effect("reverted")

    def written(self, address: int) -> None:
        """A write of the enable point restarts the timer."""
        offset = address - self._address[123]
        if offset == load_model(123).points["WMaxLim_Ena"].offset:
            seconds = self._get(123, "WMaxLimPct_RvrtTms")
            enabled = self._get(123, "WMaxLim_Ena") == 1
            self._deadline = self._monotonic() + seconds if enabled and seconds else None
            self._effect("set", enabled=int(enabled), percent=self._get(123, "WMaxLimPct"))


_ENERGY_SCALE: Final = -1
"""Meters count tenths of a watt-hour: whoever missed minutes can fill them from the registers."""


class MeterUnit(Unit):
    """Model 203; like many meters it counts import as positive (`meter_sign = -1`)."""

    def __init__(self, device_id: str, *, serial: str) -> None:
        super().__init__(device_id, (203,), serial=serial)
        self._put(203, "TotWh_SF", _ENERGY_SCALE)

    def publish(self, *, power_kw: float, imported_kwh: float, exported_kwh: float) -> None:
        """Show measurements; `power_kw` is injection-positive, the register is not."""
        self._put(203, "W", -power_kw * 1000.0)
        self._put(203, "TotWhImp", imported_kwh * 1000.0, _ENERGY_SCALE)
        self._put(203, "TotWhExp", exported_kwh * 1000.0, _ENERGY_SCALE)


class ModbusServer:
    """Serves some units on one port; an async context manager."""

    def __init__(
        self, units: Mapping[int, Unit], *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._units = units
        self._host = host
        self.port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readexactly(_HEADER.size)
                transaction, _, length, number, function = _HEADER.unpack(head)
                body = await reader.readexactly(length - 2)
                await self._answer(writer, transaction, number, function, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, transaction: int, number: int, function: int,
        body: bytes,
    ) -> None:  # fmt: skip
        unit = self._units.get(number)
        if unit is None or unit.faults.silent:
            return
        reply = respond(unit, function, body)
        faults = unit.faults
        if faults.late_s:
            await asyncio.sleep(faults.late_s)
        if faults.drop_writes and function not in {_READ, _READ_INPUT}:
            return
        if faults.garbage:
            writer.write(b"\xde\xad\xbe\xef" * 4)
            return
        named = number + 1 if faults.wrong_unit else number
        writer.write(struct.pack(">HHHB", transaction, 0, len(reply) + 1, named) + reply)
        await writer.drain()


def respond(unit: Unit, function: int, body: bytes) -> bytes:
    """A unit's answer to a request, as a PDU: function code and data, whatever frames it."""
    address = int.from_bytes(body[:2], "big")
    if function in {_READ, _READ_INPUT}:
        read = unit.read if function == _READ else unit.read_input
        registers = read(address, int.from_bytes(body[2:4], "big"))
        if registers is None:
            return bytes([function | 0x80, _ILLEGAL_ADDRESS])
        data = struct.pack(f">{len(registers)}H", *registers)
        return bytes([function, len(data)]) + data
    if function not in {_WRITE_ONE, _WRITE_MANY}:
        return bytes([function | 0x80, _ILLEGAL_FUNCTION])
    if unit.faults.exception:
        return bytes([function | 0x80, unit.faults.exception])
    data = body[2:4] if function == _WRITE_ONE else body[5:]
    values = struct.unpack(f">{len(data) // 2}H", data)
    if not unit.write(address, values):
        return bytes([function | 0x80, _ILLEGAL_ADDRESS])
    return bytes([function]) + body[:4]
