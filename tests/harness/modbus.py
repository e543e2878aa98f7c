"""A battery and a meter behind one Modbus port, and an adapter on both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.modbus.adapter import ModbusAdapter, ModbusEndpoint
from firmware_sim.servers.modbus import BatteryUnit, MeterUnit, ModbusServer
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint, SetpointOutcome
from marketplace_core.units import Kw
from tests.harness.clocks import IdentityTime, WallClock
from tests.harness.sinks import ListSink

TIMEOUT_S = 0.2


def setpoint(power_kw: float = 3.0, **changes: object) -> Setpoint:
    now = datetime.now(UTC)
    fields = {
        "id": "spt_1", "order_id": "ord_1", "revision": 0, "device_id": "bat-1",
        "power_kw": Kw(power_kw), "valid_from": now, "valid_until": now + timedelta(minutes=10),
        "lease_s": 60.0,
    }  # fmt: skip
    return Setpoint(**{**fields, **changes})


class Rig:
    """A battery and a meter behind one port, and an adapter on both."""

    def __init__(self) -> None:
        self.now = [100.0]
        self.log: list[Mapping[str, Any]] = []
        self.battery = BatteryUnit(
            "bat-1", serial="SN1", capacity_kwh=6.4, monotonic=lambda: self.now[0],
            log=self.log.append,
        )  # fmt: skip
        self.meter = MeterUnit("meter-1", serial="SN2")
        self.sink = ListSink()
        self.adapter: ModbusAdapter

    def connect(self, port: int, *, serial: str = "SN1", fallback_kw: float | None = None) -> None:
        battery = DeviceProfile(
            device_id="bat-1", protocol="modbus", min_kw=Kw(-5.0), max_kw=Kw(5.0),
            lease=LeaseKind.REVERT_TIMER, lease_s=60.0, telemetry_s=0.05,
            fallback_kw=None if fallback_kw is None else Kw(fallback_kw),
        )  # fmt: skip
        meter = DeviceProfile(
            device_id="meter-1", protocol="modbus", min_kw=Kw(-100.0), max_kw=Kw(100.0),
            telemetry_s=0.05,
        )  # fmt: skip
        where = {"host": "127.0.0.1", "port": port}
        self.adapter = ModbusAdapter(
            [
                ModbusEndpoint(device_id="bat-1", unit=1, role="battery", profile=battery,
                               serial=serial, **where),
                ModbusEndpoint(device_id="meter-1", unit=2, role="meter", profile=meter,
                               meter_sign=-1, **where),
            ],
            clock=WallClock(), time_map=IdentityTime(), timeout_s=TIMEOUT_S,
        )  # fmt: skip

    async def issue(self, one: Setpoint) -> SetpointOutcome:
        outcomes = [o async for batch in self.adapter.issue([one]) for o in batch]
        assert len(outcomes) == 1
        return outcomes[0]

    def writes(self) -> list[tuple[int, list[int]]]:
        """Offsets within model 704 and values, in the order they came."""
        return [(e["offset"], e["values"]) for e in self.log if e.get("received") == "write"]


@asynccontextmanager
async def rig(
    *, polling: bool = False, serial: str = "SN1", fallback_kw: float | None = None
) -> AsyncIterator[Rig]:
    made = Rig()
    async with ModbusServer({1: made.battery, 2: made.meter}) as server:
        made.connect(server.port, serial=serial, fallback_kw=fallback_kw)
        if not polling:
            yield made
            made.adapter.close()
            return
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(made.adapter.run(made.sink, ready=lambda: None))
            yield made
            running.cancel()
