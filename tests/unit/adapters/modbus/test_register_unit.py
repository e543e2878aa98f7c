"""Devices that are not SunSpec: what is read, what is written, and what is left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from adapters.modbus.adapter import ModbusAdapter, ModbusEndpoint
from adapters.modbus.link import ModbusLink
from adapters.modbus.reads import ReadLimits, Span
from adapters.modbus.registers.definition import RegisterError, RegisterMap
from adapters.modbus.registers.unit import RegisterUnit
from config.profiles import check_profile
from firmware_sim.servers.modbus import Faults, ModbusServer
from gateway.register_maps import register_map
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Applied, Refused, Unreachable
from marketplace_core.units import Kw
from tests.harness.clocks import IdentityTime, WallClock, eventually
from tests.harness.modbus import setpoint
from tests.harness.registers import (
    HEARTBEAT,
    READS,
    SERIAL,
    HybridInverter,
    shipped_map,
)
from tests.harness.sinks import ListSink

CHARGER = """\
title: A charger
manufacturer: Somebody
models: [C1]
role: charger
verified: false
documents: {manual: {title: Manual, revision: "1", where: here, origin: manufacturer}}
write_function: 6
max_registers: 2
flash_wear: {writes_per_day: 3, why: page 1}
points:
  power: {address: 100, table: input, type: uint32, unit: W, cite: p. 1}
  energy: {address: 102, table: input, type: uint32, unit: Wh, cite: p. 1}
  limit: {address: 5, type: uint16, scale: 0.1, unit: A, access: read_write, kept_in: ram,
    cite: p. 1}
  own_limit: {address: 6, type: uint16, scale: 0.1, unit: A, cite: p. 1}
  mode: {address: 9, type: enum16, access: read_write, kept_in: flash, cite: p. 1}
measurements:
  power: {points: [power], meter_sign: -1}
  energy_import: energy
controls:
  current:
    kind: limit
    cite: p. 1
    value: {point: limit, sign: -1, magnitude: true, volts: 230, least: 6, most: 32}
    enable: {point: mode, active: 0, idle: 1, released: 0}
    lease: {kind: fixed, longest_s: 60}
    lease_restarts_on: value
    fallback: own_behaviour
    release: [{point: limit, copy_of: own_limit}]
"""


class Charger:
    """Takes function 6 only, and two registers a read at most."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.holding = {5: 320, 6: 320, 9: 0}
        self.input = {100: 0, 101: 7400, 102: 0, 103: 38101}
        self.written: list[tuple[int, int]] = []
        self.reads: list[tuple[int, int]] = []

    def read(self, address: int, count: int) -> list[int] | None:
        return self._read(self.holding, address, count)

    def read_input(self, address: int, count: int) -> list[int] | None:
        return self._read(self.input, address, count)

    def _read(self, table: dict[int, int], address: int, count: int) -> list[int] | None:
        self.reads.append((address, count))
        places = range(address, address + count)
        return [table[at] for at in places] if count <= 2 and set(places) <= table.keys() else None

    def write(self, address: int, values: tuple[int, ...]) -> bool:
        if len(values) != 1 or address not in self.holding:
            return False
        self.written.append((address, values[0]))
        self.holding[address] = values[0]
        return True


def charger_map() -> RegisterMap:
    return register_map(check_profile("c", "c.yaml", CHARGER).required())


@asynccontextmanager
async def driven(
    device: RegisterMap, unit: Any, *, limits: ReadLimits = READS, number: int = 1,
    serial: str = "", **fields: Any,
) -> AsyncIterator[ModbusAdapter]:  # fmt: skip
    kept = {"min_kw": Kw(-22.0), "max_kw": Kw(22.0), "lease": LeaseKind.REVERT_TIMER,
            "lease_s": 60.0, **fields}  # fmt: skip
    async with ModbusServer({number: unit}) as server:
        endpoint = ModbusEndpoint(
            device_id="bat-1", host="127.0.0.1", port=server.port, unit=number, role=device.role,
            device=device, reads=limits, serial=serial, phases=3,
            profile=DeviceProfile(device_id="bat-1", protocol="modbus", **kept),
        )  # fmt: skip
        adapter = ModbusAdapter(
            [endpoint], clock=WallClock(), time_map=IdentityTime(), timeout_s=0.3
        )
        yield adapter
        adapter.close()


async def issue(adapter: ModbusAdapter, power_kw: float, number: int = 1) -> Any:
    one = setpoint(power_kw, id=f"spt_{number}", order_id=f"ord_{number}")
    (outcome,) = [found async for batch in adapter.issue([one]) for found in batch]
    return outcome


async def test_a_charger_is_limited_in_amperes_by_function_6_and_given_back_its_own() -> None:
    charger = Charger()
    limits = ReadLimits(max_registers=2, max_gap=0)
    control = {"control": ControlKind.LIMIT}
    async with driven(charger_map(), charger, limits=limits, number=255, **control) as adapter:
        applied = await issue(adapter, -7.0)
        assert isinstance(applied, Applied), applied
        assert applied.read_back_kw == pytest.approx(-6.969)  # 10.1 A: never more than 7 kW
        assert charger.written == [(5, 101)]  # the mode holds its number: flash is left alone
        stopped = await issue(adapter, 0.0, 2)
        assert isinstance(stopped, Applied), stopped
        assert stopped.read_back_kw == 0.0
        assert charger.written[1:] == [(9, 1)]
        released = await adapter.release("bat-1", order_id="ord_2", revision=0)
        assert isinstance(released, Applied), released
        assert charger.written[2:] == [(5, 320), (9, 0)]
        assert not (await adapter.read_back("bat-1")).active
    assert max(count for _, count in charger.reads) == 2


@pytest.mark.parametrize(
    ("power_kw", "words"),
    [(-3.0, "6 is the least"), (-22.1, "is outside"), (5.0, "cannot inject")],
)
async def test_what_a_charger_cannot_hold_is_refused_and_not_written(
    power_kw: float, words: str
) -> None:
    charger = Charger()
    async with driven(charger_map(), charger, limits=ReadLimits(max_registers=2)) as adapter:
        refused = await issue(adapter, power_kw)
        assert isinstance(refused, Refused), refused
        assert words in refused.reason
    assert charger.written == []


async def test_only_what_wears_counts_against_the_budget() -> None:
    charger = Charger()
    limits = ReadLimits(max_registers=2)
    async with driven(charger_map(), charger, limits=limits, writes_per_day=3) as adapter:
        for number, power_kw in enumerate((-7.0, -8.0, -9.0, -10.0), start=1):  # RAM only
            assert isinstance(await issue(adapter, power_kw, number), Applied)
        for number, power_kw in enumerate((0.0, -7.0, 0.0), start=5):  # the mode, each time
            assert isinstance(await issue(adapter, power_kw, number), Applied)
        refused = await issue(adapter, -7.0, 8)
        assert isinstance(refused, Refused)
        assert refused.rule == "writes_per_day"
        released = await adapter.release("bat-1", order_id="ord_8", revision=0)
        assert isinstance(released, Applied)


async def test_without_a_lease_a_renewal_only_looks_and_no_pace_holds_it_back() -> None:
    text = CHARGER.replace("{kind: fixed, longest_s: 60}", "{kind: none}")
    text = text.replace("    lease_restarts_on: value\n    fallback: own_behaviour",
                        "    fallback: keeps")  # fmt: skip
    loaded, charger = check_profile("c", "c.yaml", text), Charger()
    assert loaded.findings == ()
    fields = {"lease": LeaseKind.WATCHDOG, "write_every_s": 3600.0}
    limits = ReadLimits(max_registers=2)
    async with driven(register_map(loaded.required()), charger, limits=limits, **fields) as adapter:
        assert isinstance(await issue(adapter, -7.0), Applied)
        assert isinstance(await issue(adapter, -7.0), Applied)
        assert charger.written == [(5, 101)]
        charger.holding[5] = 320  # somebody set it back
        assert (await issue(adapter, -7.0)).rule == "write_every_s"  # it would be written again


async def test_a_heartbeat_is_counted_up_while_something_is_held_and_no_longer() -> None:
    text = CHARGER.replace("  mode: {", "  beat: {address: 20, type: uint16, access: read_write, "
                           "kept_in: ram, cite: p. 1}\n  mode: {")  # fmt: skip
    text = text.replace(
        "{kind: fixed, longest_s: 60}\n    lease_restarts_on: value",
        "{kind: heartbeat, point: beat, every_s: 0.05, longest_s: 2}",
    )
    loaded = check_profile("c", "c.yaml", text)
    assert loaded.findings == ()
    device, charger = register_map(loaded.required()), Charger()
    charger.holding[20] = 0x7FFE
    limits, lease = ReadLimits(max_registers=2), LeaseKind.HEARTBEAT
    async with (
        driven(device, charger, limits=limits, lease=lease, telemetry_s=0.05) as adapter,
        asyncio.TaskGroup() as tasks,
    ):
        running = tasks.create_task(adapter.run(ListSink(), ready=lambda: None))
        assert isinstance(await issue(adapter, -7.0), Applied)
        assert charger.written[:2] == [(20, 0x7FFF), (5, 101)]  # it beats before it is told
        await eventually(lambda: (20, 2) in charger.written, what="the beats")
        assert isinstance(await issue(adapter, -7.0), Applied)  # a renewal only looks
        assert [entry for entry in charger.written if entry[0] == 5] == [(5, 101)]
        released = await adapter.release("bat-1", order_id="ord_1", revision=0)
        assert isinstance(released, Applied)
        beats = sum(address == 20 for address, _ in charger.written)
        await asyncio.sleep(0.3)
        assert sum(address == 20 for address, _ in charger.written) <= beats + 1
        running.cancel()


async def test_a_device_that_does_not_say_what_it_returns_to_is_not_driven() -> None:
    charger = Charger()
    points = charger_map().points
    lost = msgspec.structs.replace(points["own_limit"], missing=(320,))
    device = msgspec.structs.replace(charger_map(), points={**points, "own_limit": lost})
    async with driven(device, charger, limits=ReadLimits(max_registers=2)) as adapter:
        refused = await issue(adapter, -7.0)
        assert isinstance(refused, Refused)
        assert "own_limit does not say" in refused.reason
    assert charger.written == []


async def test_a_charger_that_its_user_stopped_is_neither_started_nor_released() -> None:
    charger = Charger()
    async with driven(charger_map(), charger, limits=ReadLimits(max_registers=2)) as adapter:
        assert isinstance(await issue(adapter, -7.0), Applied)
        charger.holding[9] = 1
        await adapter.read_back("bat-1")
        charger.written.clear()
        refused = await issue(adapter, -9.0, 2)
        assert isinstance(refused, Refused)
        assert "not by us" in refused.reason
        assert isinstance(await issue(adapter, 0.0, 3), Applied)  # it stands still already
        assert charger.written == []
        released = await adapter.release("bat-1", order_id="ord_3", revision=0)
        assert isinstance(released, Applied), released
        assert charger.written == [(5, 320)]  # its current comes back, its stop stays
        assert charger.holding[9] == 1


async def test_a_charger_that_we_stopped_starts_again_also_after_our_own_restart() -> None:
    charger = Charger()
    limits = ReadLimits(max_registers=2)
    async with driven(charger_map(), charger, limits=limits) as adapter:
        assert isinstance(await issue(adapter, 0.0), Applied)
        assert charger.holding[9] == 1
        assert isinstance(await issue(adapter, -9.0, 2), Applied)
        assert charger.holding[9] == 0
        assert isinstance(await issue(adapter, 0.0, 3), Applied)
    async with driven(charger_map(), charger, limits=limits) as adapter:
        assert (await adapter.read_back("bat-1")).active
        assert isinstance(await issue(adapter, -9.0, 4), Refused)  # whose stop it is, nobody knows
        released = await adapter.release("bat-1", order_id="ord_3", revision=0)
        assert isinstance(released, Applied)
        assert charger.holding[9] == 0
        assert isinstance(await issue(adapter, -9.0, 5), Applied)


async def test_power_and_energy_of_a_device_that_only_consumes() -> None:
    async with driven(charger_map(), Charger(), limits=ReadLimits(max_registers=2)) as adapter:
        unit = adapter._bound["bat-1"].unit
        assert isinstance(unit, RegisterUnit)
        told = await unit.measure(slow=True, capacity_kwh=None)
        assert (told.power_kw, told.register_kwh, told.stored_kwh) == (-7.4, -38.101, None)
        assert (await unit.measure(slow=False, capacity_kwh=None)).register_kwh is None


async def test_stored_energy_is_the_settings_capacity_before_the_devices_own() -> None:
    inverter = HybridInverter("bat-1")
    inverter.publish(power_kw=-1.5)
    async with driven(shipped_map("sungrow-sh"), inverter) as adapter:
        unit = adapter._bound["bat-1"].unit
        own = await unit.measure(slow=True, capacity_kwh=None)
        assert (own.power_kw, own.stored_kwh) == (-1.5, pytest.approx(0.473 * 9.6))
        told = await unit.measure(slow=True, capacity_kwh=5.0)
        assert told.stored_kwh == pytest.approx(0.473 * 5.0)


@pytest.mark.parametrize(
    ("serial", "code", "words"),
    [(SERIAL, 0xD03, "this is no Sungrow SH"), ("A99", 0xE03, "instead of 'A99'")],
)
async def test_another_device_at_the_address_is_never_written(
    serial: str, code: int, words: str
) -> None:
    log: list[Any] = []
    inverter = HybridInverter("bat-1", log=log.append)
    inverter.input[4999] = code
    async with driven(shipped_map("sungrow-sh"), inverter, serial=serial) as adapter:
        refused = await issue(adapter, 2.0)
        assert isinstance(refused, Refused)
        assert words in refused.reason
    assert log == []


async def test_a_serial_that_the_device_does_not_show_is_refused() -> None:
    charger = Charger()
    limits = ReadLimits(max_registers=2)
    async with driven(charger_map(), charger, limits=limits, serial="X") as adapter:
        assert "shows no serial number" in (await issue(adapter, -7.0)).reason


async def test_renewing_writes_the_timer_and_nothing_else() -> None:
    log: list[Any] = []
    inverter = HybridInverter("bat-1", log=log.append)
    async with driven(shipped_map("sungrow-sh"), inverter, serial=SERIAL) as adapter:
        assert isinstance(await issue(adapter, 2.0), Applied)
        log.clear()
        assert isinstance(await issue(adapter, 2.0), Applied)
    written = [entry["address"] for entry in log if entry.get("received") == "write"]
    assert written == [HEARTBEAT]


async def test_when_the_heartbeat_stays_away_the_device_is_its_own_again() -> None:
    now = [1000.0]
    inverter = HybridInverter("bat-1", monotonic=lambda: now[0])
    async with driven(shipped_map("sungrow-sh"), inverter, serial=SERIAL) as adapter:
        assert isinstance(await issue(adapter, 2.0), Applied)
        assert inverter.commanded_kw() == 2.0
        now[0] += 61.0
        assert inverter.commanded_kw() is None
        assert not (await adapter.read_back("bat-1")).active


@pytest.mark.parametrize(
    ("before_kw", "then_kw"), [(-2.0, 5.0), (5.0, -2.0), (2.0, 5.0), (-5.0, 0.0), (0.0, 3.0)]
)
async def test_between_two_writes_it_is_never_at_more_than_before_or_after(
    before_kw: float, then_kw: float
) -> None:
    log: list[Any] = []
    inverter = HybridInverter("bat-1", log=log.append)
    async with driven(shipped_map("sungrow-sh"), inverter, serial=SERIAL) as adapter:
        assert isinstance(await issue(adapter, before_kw, 1), Applied)
        log.clear()
        assert isinstance(await issue(adapter, then_kw, 2), Applied)
        assert inverter.commanded_kw() == then_kw
    on_the_way = [entry["power_kw"] for entry in log if entry.get("effect") == "set"]
    low, high = min(before_kw, then_kw, 0.0), max(before_kw, then_kw, 0.0)
    assert all(low <= power <= high for power in on_the_way), on_the_way


async def test_a_device_that_is_only_read_says_why_it_is_not_driven() -> None:
    charger = Charger()
    async with driven(shipped_map("keba-p30"), charger, limits=ReadLimits(max_registers=2)) as one:
        refused = await issue(one, -7.0)
        assert "no control" in refused.reason
        assert "no control" in (await one.release("bat-1", order_id="o", revision=0)).reason
    with pytest.raises(RegisterError, match="no control 'x'; it has external_ems"):
        shipped_map("sungrow-sh").control("x")


async def test_requests_keep_the_devices_pause() -> None:
    charger = Charger()
    device = msgspec.structs.replace(charger_map(), pause_s=0.05)
    async with ModbusServer({1: charger}) as server:
        link = ModbusLink("127.0.0.1", server.port, timeout_s=0.3, monotonic=time.monotonic)
        unit = RegisterUnit(
            link, 1, device, limits=ReadLimits(max_registers=2, max_gap=0),
            monotonic=asyncio.get_running_loop().time,
        )  # fmt: skip
        began = time.monotonic()
        await unit.points(device.points)  # 5 and 6, 9, 100 and 101, 102 and 103: four requests
        assert time.monotonic() - began >= 3 * 0.05
        link.close()
    assert charger.reads == [(5, 2), (9, 1), (100, 2), (102, 2)]


async def test_a_silent_device_is_unreachable_and_an_unreadable_point_refused() -> None:
    inverter = HybridInverter("bat-1")
    inverter.faults.silent = True
    async with driven(shipped_map("sungrow-sh"), inverter, serial=SERIAL) as adapter:
        assert isinstance(await issue(adapter, 2.0), Unreachable)
    limits = ReadLimits(max_registers=100, forbidden=(Span(13050, 13051),))
    async with driven(shipped_map("sungrow-sh"), HybridInverter("bat-1"), limits=limits) as adapter:
        assert "may not be read" in (await issue(adapter, 2.0)).reason
