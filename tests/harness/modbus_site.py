"""A battery and a meter on one faulty line, and an adapter that drives them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from adapters.modbus.adapter import ModbusAdapter, ModbusEndpoint
from adapters.modbus.lines import Line, Transport
from adapters.modbus.points import read_points
from adapters.modbus.reads import ReadLimits
from adapters.modbus.sunspec import load_model
from firmware_sim.servers.modbus import BatteryUnit, MeterUnit
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint, SetpointOutcome
from marketplace_core.units import Kw
from tests.harness.clocks import IdentityTime, WallClock
from tests.harness.modbus_frames import Mbap, Request, Rtu
from tests.harness.modbus_server import Fault, Faulty, serving
from tests.harness.sinks import ListSink

TIMEOUT_S = 0.2
BATTERY, METER = 1, 2
METER_KW = -1.25


class SkippingClock(WallClock):
    """The wall clock, and time that is skipped: back-offs and intervals need no waiting."""

    def __init__(self) -> None:
        self.skipped_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped_s

    def now(self) -> datetime:
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + self.skipped_s, UTC)


class Site:
    def __init__(self, transport: Transport, *, delay_s: float = 2 * TIMEOUT_S) -> None:
        self.log: list[Mapping[str, Any]] = []
        self.battery = BatteryUnit("bat-1", serial="SN1", capacity_kwh=6.4, log=self.log.append)
        self.meter = MeterUnit("meter-1", serial="SN2")
        self.meter.publish(power_kw=METER_KW, imported_kwh=3.0, exported_kwh=1.0)
        self.server = Faulty(
            units={BATTERY: self.battery, METER: self.meter},
            framing=Mbap() if transport == "tcp" else Rtu(), delay_s=delay_s,
        )  # fmt: skip
        self.clock = SkippingClock()
        self.sink = ListSink()
        self.adapter: ModbusAdapter

    def connect(
        self, line: Line, *, slow_s: float = 0.0, telemetry_s: float = 0.05,
        writes: Path | None = None, reads: ReadLimits | None = None, **fields: object,
    ) -> None:  # fmt: skip
        kept = {
            "min_kw": Kw(-5.0), "max_kw": Kw(5.0), "lease": LeaseKind.REVERT_TIMER, "lease_s": 60.0,
            "telemetry_s": telemetry_s,
        }  # fmt: skip
        battery = DeviceProfile(device_id="bat-1", protocol="modbus", **{**kept, **fields})
        meter = DeviceProfile(
            device_id="meter-1", protocol="modbus", min_kw=Kw(-9.0), max_kw=Kw(9.0),
            telemetry_s=telemetry_s,
        )  # fmt: skip
        shared = {"line": line, "slow_s": slow_s, "reads": reads or ReadLimits()}
        self.adapter = ModbusAdapter(
            [
                ModbusEndpoint(device_id="bat-1", unit=BATTERY, role="battery", serial="SN1",
                               profile=battery, **shared),
                ModbusEndpoint(device_id="meter-1", unit=METER, role="meter", meter_sign=-1,
                               profile=meter, **shared),
            ],
            clock=self.clock, time_map=IdentityTime(), timeout_s=TIMEOUT_S, writes=writes,
        )  # fmt: skip

    async def issue(self, one: Setpoint) -> SetpointOutcome:
        outcomes = [o async for batch in self.adapter.issue([one]) for o in batch]
        assert len(outcomes) == 1
        return outcomes[0]

    async def meter_kw(self) -> float:
        """What the neighbour measures, asked through the same line."""
        unit = self.adapter._bound["meter-1"].unit
        watts = (await read_points(unit, 203, ("W",), ReadLimits()))["W"]
        assert isinstance(watts, int | float)
        return -watts / 1000.0

    def written(self) -> list[str]:
        """Points of model 704 that a write reached, in their order."""
        names = {point.offset: name for name, point in load_model(704).points.items()}
        return [names[e["offset"]] for e in self.log if e.get("received") == "write"]

    def controls(self, request: Request) -> bool:
        return request.unit == BATTERY and request.address in self.battery.controls()


class Once:
    """One fault, at a request of the battery's that is told by where it stands in a command."""

    def __init__(self, site: Site, when: str, fault: Fault) -> None:
        self._site = site
        self._when = when
        self._fault = fault
        self._writes = 0
        self.struck = False

    def __call__(self, request: Request) -> Fault | None:
        self._writes += request.writes
        if self.struck or request.unit != BATTERY or not self._now(request):
            return None
        self.struck = True
        return self._fault

    def _now(self, request: Request) -> bool:
        points, controls = load_model(704).points, self._site.battery.controls()
        if self._when == "identity":
            return True
        if self._when == "first write":
            return request.writes
        if self._when == "enable":
            return request.writes and request.address == controls.start + points["WSetEna"].offset
        return not request.writes and self._writes == 6


@asynccontextmanager
async def site(transport: Transport = "tcp", **settings: Any) -> AsyncIterator[Site]:
    made = Site(transport)
    async with serving(made.server, transport) as line:
        made.connect(_with(line, settings), **settings)
        yield made
        made.adapter.close()


@asynccontextmanager
async def polling(made: Site) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.adapter.run(made.sink, ready=lambda: None))
        yield
        running.cancel()


def _with(line: Line, settings: dict[str, Any]) -> Line:
    of_line = {key: settings.pop(key) for key in list(settings) if key in Line.__struct_fields__}
    return msgspec.structs.replace(line, **of_line)
