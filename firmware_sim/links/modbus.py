"""Homes: each a Modbus TCP gateway with three SunSpec units behind it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

from firmware_sim.links.base import HOST, Addresses, Moments, Readings, noted
from firmware_sim.records import Recorder
from firmware_sim.scenario import Home
from firmware_sim.servers.modbus import BatteryUnit, InverterUnit, MeterUnit, ModbusServer, Unit
from firmware_sim.world import Fault
from marketplace_core.verification.flags import FlagKind


class ModbusLink:
    """Homes: each a Modbus TCP gateway with a battery, an inverter and a meter behind it."""

    def __init__(
        self, homes: Sequence[Home], faults: Sequence[Fault] = (), *, record: Recorder
    ) -> None:
        """Ports are free ones, known once the servers run."""
        self._homes = [_HomeUnits(home, noted(record)) for home in homes]
        self._ports: dict[str, int] = {}
        units = {name: unit for home in self._homes for name, unit in home.by_device.items()}
        self._silences = [
            (fault, units[fault.device])
            for fault in faults
            if fault.kind is FlagKind.TIMES_OUT and fault.device in units
        ]

    def disturb(self, at: datetime) -> None:
        """Make units silent, and let them answer again."""
        for fault, unit in self._silences:
            unit.faults.silent = fault.active(at)

    def commands(self) -> Mapping[str, float | None]:
        """What the control registers of batteries and inverters say."""
        return {name: kw for home in self._homes for name, kw in home.commands().items()}

    def show(self, moments: Moments) -> None:
        """Put the step's measurements into the registers."""
        for home in self._homes:
            home.show(moments)

    def report(self, readings: Readings) -> None:
        """Units are polled."""

    def addresses(self) -> Addresses:
        """Host, port, unit and serial number of each device; how its meter counts."""
        places = {
            device: {"host": HOST, "port": self._ports[home.home.id], **details}
            for home in self._homes
            for device, details in home.details().items()
        }
        return {"modbus": places}

    async def run(self, started: Callable[[], None]) -> None:
        """Serve every home until cancelled."""
        async with AsyncExitStack() as stack:
            for home in self._homes:
                server = await stack.enter_async_context(ModbusServer(home.units(), host=HOST))
                self._ports[home.home.id] = server.port
            started()
            await asyncio.Event().wait()


class _HomeUnits:
    """The registers of one home's three devices."""

    def __init__(self, home: Home, log: Callable[[Mapping[str, Any]], None]) -> None:
        self.home = home
        spec = home.battery_spec
        self._battery = BatteryUnit(
            home.battery, serial=_serial(home.battery), log=log,
            capacity_kwh=spec.usable_kwh(spec.capacity_kwh),
        )  # fmt: skip
        self._inverter = InverterUnit(
            home.inverter, serial=_serial(home.inverter), rated_kw=home.rated_pv_kw, log=log
        )
        self._meter = MeterUnit(home.meter, serial=_serial(home.meter))
        self.by_device: dict[str, Unit] = {
            home.battery: self._battery,
            home.inverter: self._inverter,
            home.meter: self._meter,
        }

    def units(self) -> dict[int, Unit]:
        return {self.home.units[device]: unit for device, unit in self.by_device.items()}

    def details(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {
            device: {"unit": unit, "serial": _serial(device)}
            for device, unit in self.home.units.items()
        }
        found[self.home.meter]["meter_sign"] = -1
        return found

    def commands(self) -> dict[str, float | None]:
        return {
            self.home.battery: self._battery.commanded_kw(),
            self.home.inverter: self._inverter.commanded_kw(),
        }

    def show(self, moments: Moments) -> None:
        battery, meter = moments[self.home.battery], moments[self.home.meter]
        self._battery.publish(power_kw=battery.power_kw, soc_kwh=battery.soc_kwh or 0.0)
        self._inverter.publish(power_kw=moments[self.home.inverter].power_kw)
        self._meter.publish(
            power_kw=meter.power_kw, imported_kwh=meter.imported_kwh or 0.0,
            exported_kwh=meter.exported_kwh,
        )  # fmt: skip


def _serial(device: str) -> str:
    """A serial number that stays the same: 16 characters fit the common model."""
    return f"FX{zlib.crc32(device.encode()):010d}"
