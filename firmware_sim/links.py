"""Binds the plant's devices to the servers that speak for them."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Protocol

from firmware_sim.plant import Moment
from firmware_sim.records import Recorder
from firmware_sim.scenario import CarPark, Charger, Home
from firmware_sim.servers.modbus import BatteryUnit, InverterUnit, MeterUnit, ModbusServer, Unit
from firmware_sim.servers.mqtt import MqttDevice
from firmware_sim.servers.openadr import Decide, SiteEvent, SiteVen
from marketplace_core.ports import TimeMap
from marketplace_core.verification.reading import Reading

Moments = Mapping[str, Moment]
Readings = Mapping[str, Reading]
_HOST = "127.0.0.1"
_POLL_MARKET_S = 90.0
_LONGEST_POLL_S = 10.0
_SHORTEST_S = 0.25


class Link(Protocol):
    """The servers of one protocol."""

    def commands(self) -> Mapping[str, float | None]:
        """Power that each of its devices is told to hold now; None = its fallback."""

    def show(self, moments: Moments) -> None:
        """Take over what the devices did in a step."""

    def report(self, readings: Readings) -> None:
        """Send the readings of a full minute."""

    def addresses(self) -> Mapping[str, Mapping[str, Any]]:
        """Where each device can be reached, where it listens itself."""

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until cancelled; call `started` once every device listens."""


class ModbusLink:
    """Homes: each a Modbus TCP gateway with a battery, an inverter and a meter behind it."""

    def __init__(self, homes: Sequence[Home], *, record: Recorder, host: str = _HOST) -> None:
        """Ports are free ones, known once the servers run."""
        self._host = host
        self._homes = [_HomeUnits(home, _noted(record)) for home in homes]
        self._ports: dict[str, int] = {}

    def commands(self) -> Mapping[str, float | None]:
        """What the control registers of batteries and inverters say."""
        return {name: kw for home in self._homes for name, kw in home.commands().items()}

    def show(self, moments: Moments) -> None:
        """Put the step's measurements into the registers."""
        for home in self._homes:
            home.show(moments)

    def report(self, readings: Readings) -> None:
        """Units are polled."""

    def addresses(self) -> Mapping[str, Mapping[str, Any]]:
        """Host, port, unit and serial number of each device; how its meter counts."""
        return {
            device: {"host": self._host, "port": self._ports[home.home.id], **details}
            for home in self._homes
            for device, details in home.details().items()
        }

    async def run(self, started: Callable[[], None]) -> None:
        """Serve every home until cancelled."""
        async with AsyncExitStack() as stack:
            for home in self._homes:
                server = await stack.enter_async_context(
                    ModbusServer(home.units(), host=self._host)
                )
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

    def units(self) -> dict[int, Unit]:
        home = self.home
        units = {
            home.battery: self._battery,
            home.inverter: self._inverter,
            home.meter: self._meter,
        }
        return {home.units[device]: unit for device, unit in units.items()}

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
            power_kw=meter.power_kw, imported_kwh=meter.imported_kwh,
            exported_kwh=meter.exported_kwh,
        )  # fmt: skip


def _serial(device: str) -> str:
    """A serial number that stays the same: 16 characters fit the common model."""
    return f"FX{zlib.crc32(device.encode()):010d}"


class MqttLink:
    """Chargers that connect to a broker, and come back when it goes away."""

    def __init__(
        self,
        chargers: Sequence[Charger],
        *,
        broker: tuple[str, int],
        time_map: TimeMap,
        record: Recorder,
    ) -> None:
        """The boot counter is the wall's second: it grows with every start."""
        self._broker = broker
        self._map = time_map
        boot = int(time.time())
        self._devices = {
            one.id: MqttDevice(one.id, one.seller, boot=boot, log=_noted(record))
            for one in chargers
        }

    def commands(self) -> Mapping[str, float | None]:
        """What each charger is limited to."""
        return {name: device.commanded_kw() for name, device in self._devices.items()}

    def show(self, moments: Moments) -> None:
        """Chargers speak once a minute only."""

    def report(self, readings: Readings) -> None:
        """Queue a minute's reading in every charger, in wall time and watts."""
        for name, device in self._devices.items():
            device.report(self._row(readings[name]))

    def addresses(self) -> Mapping[str, Mapping[str, Any]]:
        """None: chargers are clients of the broker."""
        return {}

    async def run(self, started: Callable[[], None]) -> None:
        """Hold every charger's link to the broker."""
        host, port = self._broker
        started()
        async with asyncio.TaskGroup() as tasks:
            for device in self._devices.values():
                tasks.create_task(device.run(host, port))

    def _row(self, reading: Reading) -> list[Any]:
        start = self._map.to_wall(reading.start)
        sample = None if reading.sample_kw is None else reading.sample_kw * 1000.0
        return [
            reading.sequence,
            round(start.timestamp() * 1e6),
            reading.seconds / self._map.speed,
            reading.power_kw * 1000.0,
            sample,
            None,
            reading.available,
        ]


class OpenAdrLink:
    """Car parks that are VENs of one VTN, and come back when it goes away."""

    def __init__(
        self, sites: Sequence[CarPark], *, vtn_url: str, time_map: TimeMap, record: Recorder
    ) -> None:
        """Polls and reports are as fast as simulated time asks for, within reason."""
        self._map = time_map
        poll_s = min(_LONGEST_POLL_S, max(_SHORTEST_S, _POLL_MARKET_S / time_map.speed))
        self._vens = {
            one.id: SiteVen(
                vtn_url=vtn_url, ven_name=one.ven_name, resource_id=one.id, poll_s=poll_s,
                decide=_joined(one.id, record), report_s=max(_SHORTEST_S, 60.0 / time_map.speed),
            )
            for one in sites
        }  # fmt: skip

    def commands(self) -> Mapping[str, float | None]:
        """What the event in force limits each site to."""
        now = datetime.now(UTC)
        return {name: ven.commanded_kw(now) for name, ven in self._vens.items()}

    def show(self, moments: Moments) -> None:
        """Sites report means only."""

    def report(self, readings: Readings) -> None:
        """Queue a minute's mean in every VEN."""
        for name, ven in self._vens.items():
            ven.measured(self._map.to_wall(readings[name].start), readings[name].power_kw)

    def addresses(self) -> Mapping[str, Mapping[str, Any]]:
        """None: VENs are clients of the VTN."""
        return {}

    async def run(self, started: Callable[[], None]) -> None:
        """Poll and report for every site."""
        started()
        async with asyncio.TaskGroup() as tasks:
            for ven in self._vens.values():
                tasks.create_task(ven.run())


def _joined(device: str, record: Recorder) -> Decide:
    """Opt in to every event, and write it down."""

    def decide(event: SiteEvent) -> bool:
        record(
            device, "command", received="event", id=event.id, modification=event.modification,
            status=event.status, load_kw=event.load_kw,
        )  # fmt: skip
        return True

    return decide


def _noted(record: Recorder) -> Callable[[Mapping[str, Any]], None]:
    """A device's own log entry, as a line of the wire record."""

    def note(entry: Mapping[str, Any]) -> None:
        detail = {key: value for key, value in entry.items() if key != "device"}
        action = "command" if "received" in entry else "device"
        record(entry["device"], action, **detail)

    return note
