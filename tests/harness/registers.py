"""A hybrid inverter that is not SunSpec, as its protocol describes it, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from adapters.modbus.adapter import ModbusAdapter, ModbusEndpoint
from adapters.modbus.reads import ReadLimits
from adapters.modbus.registers.definition import RegisterMap
from config.profiles import read_profile
from firmware_sim.servers.modbus import Faults, ModbusServer
from gateway.register_maps import register_map
from marketplace_core.dispatch.profile import LeaseKind
from tests.harness.benches import AWAY, HERE, HOST, Bench, profile
from tests.harness.clocks import IdentityTime, WallClock

SERIAL = "A22B0001"
READS = ReadLimits(max_registers=100, max_gap=20)
HEARTBEAT, MODE, COMMAND, POWER = 13079, 13049, 13050, 13051
EXTERNAL, CHARGE, DISCHARGE, STOP = 3, 0xAA, 0xBB, 0xCC


def shipped_map(name: str) -> RegisterMap:
    """A shipped profile, without the waits for the device to settle."""
    found = register_map(read_profile(name).required())
    controls = {
        key: msgspec.structs.replace(control, settle_s=0.0)
        for key, control in found.controls.items()
    }
    return msgspec.structs.replace(found, controls=controls, pause_s=0.0)


class HybridInverter:
    """Sungrow SH: its heartbeat register counts down, and then it consumes its own sun again.

    Communication Protocol of Residential Hybrid Inverter V1.1.9, pages 6 to 13 and 21.
    """

    def __init__(
        self, device_id: str, *, monotonic: Callable[[], float] = time.monotonic,
        log: Callable[[Mapping[str, Any]], None] = lambda _entry: None,
    ) -> None:  # fmt: skip
        self.device_id = device_id
        self.faults = Faults()
        self._monotonic = monotonic
        self._log = log
        self._deadline: float | None = None
        self.holding = dict.fromkeys(range(13000, 13100), 0)
        self.holding |= {MODE: 0, COMMAND: STOP, POWER: 0, HEARTBEAT: 20}
        self.input = dict.fromkeys(
            [*range(4989, 5007), *range(5200, 5700), *range(12999, 13040)], 0
        )
        text = SERIAL.encode().ljust(20, b"\0")
        words = [int.from_bytes(text[at : at + 2], "big") for at in range(0, 20, 2)]
        self.input |= dict(zip(range(4989, 4999), words, strict=True))
        self.input |= {4999: 0xE03, 5000: 100, 5638: 960, 13022: 473}

    def publish(self, *, power_kw: float) -> None:
        """Show the battery's power, discharging positive, the lower word first."""
        raw = round(power_kw * 1000.0) & 0xFFFF_FFFF
        self.input |= {5213: raw & 0xFFFF, 5214: raw >> 16}

    def commanded_kw(self) -> float | None:
        self.refresh()
        if self.holding[MODE] != EXTERNAL:
            return None
        ways = {CHARGE: -1.0, DISCHARGE: 1.0}
        return ways.get(self.holding[COMMAND], 0.0) * self.holding[POWER] / 1000.0 or 0.0

    def read(self, address: int, count: int) -> list[int] | None:
        self.refresh()
        return _taken(self.holding, address, count)

    def read_input(self, address: int, count: int) -> list[int] | None:
        return _taken(self.input, address, count)

    def write(self, address: int, values: Sequence[int]) -> bool:
        if not all(at in self.holding for at in range(address, address + len(values))):
            return False
        self._log({"received": "write", "address": address, "values": list(values)})
        before = self.commanded_kw()
        for at, value in enumerate(values, start=address):
            self.holding[at] = value
            if at == HEARTBEAT:
                self._deadline = self._monotonic() + value
        if self.commanded_kw() not in {before, None}:
            self._log({"effect": "set", "power_kw": self.commanded_kw()})
        return True

    def refresh(self) -> None:
        """Back to self-consumption when no heartbeat came in time."""
        late = self._deadline is None or self._monotonic() >= self._deadline
        if late and self.holding[MODE] == EXTERNAL:
            self.holding[MODE] = 0
            self._log({"effect": "reverted"})


def _taken(registers: Mapping[int, int], address: int, count: int) -> list[int] | None:
    wanted = range(address, address + count)
    return [registers[at] for at in wanted] if all(at in registers for at in wanted) else None


class RegistersBench(Bench):
    """A hybrid inverter by its shipped profile, and one whose gateway swallows every request."""

    command = "write"

    def __init__(self) -> None:
        super().__init__()
        self._here = HybridInverter(HERE, log=self.log.append)
        self._mute = HybridInverter(AWAY)
        self._mute.faults.silent = True

    def commanded_kw(self) -> float | None:
        return self._here.commanded_kw()

    def measure(self, power_kw: float) -> None:
        self._here.publish(power_kw=power_kw)

    async def prepare(self, stack: AsyncExitStack) -> None:
        endpoints = []
        for name, unit in ((HERE, self._here), (AWAY, self._mute)):
            server = await stack.enter_async_context(ModbusServer({1: unit}))
            one = profile(name, "modbus", LeaseKind.REVERT_TIMER, telemetry_s=0.05)
            endpoints.append(
                ModbusEndpoint(
                    device_id=name, host=HOST, port=server.port, unit=1, role="battery",
                    serial=SERIAL, device=shipped_map("sungrow-sh"), reads=READS, profile=one,
                )
            )  # fmt: skip
        self.adapter = ModbusAdapter(
            endpoints, clock=WallClock(), time_map=IdentityTime(), timeout_s=0.3
        )
