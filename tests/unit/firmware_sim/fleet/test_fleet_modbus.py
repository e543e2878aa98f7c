"""Modbus units of a fleet behind real sockets: foreign and own clients, timers, each fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient

from adapters.modbus.adapter import ModbusAdapter, ModbusEndpoint
from adapters.modbus.link import LinkError, ModbusLink
from adapters.modbus.unit import SunSpecUnit
from adapters.modbus.wire import load_model
from config.loading import read_settings
from config.writing import to_toml
from firmware_sim.fleet.gateway_settings import modbus_devices, mqtt_devices
from firmware_sim.fleet.modbus_fleet import ModbusFleet, serial_of
from firmware_sim.fleet.modbus_host import ModbusHost
from firmware_sim.fleet.population import BATTERY, populate
from firmware_sim.fleet.run import stopwatch
from firmware_sim.fleet.stats import Stats
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Applied, Unconfirmed, Unreachable
from marketplace_core.units import Kw
from marketplace_core.verification.flags import FlagKind
from tests.harness.clocks import IdentityTime, WallClock, eventually
from tests.harness.fleets import scenario
from tests.harness.lab import HOST
from tests.harness.modbus import setpoint
from tests.harness.sinks import ListSink

COUNT = 12
UNITS = populate("modbus", COUNT, seed=7)
BATTERIES = [n for n, kind in enumerate(UNITS.kinds) if kind == BATTERY]
B = BATTERIES[0]
PV = next(n for n, kind in enumerate(UNITS.kinds) if kind != BATTERY)
_READ = 3


@asynccontextmanager
async def served(*entries: str, per_port: int = 1) -> AsyncIterator[tuple[ModbusHost, ModbusFleet]]:
    clock = stopwatch()
    fleet = ModbusFleet(UNITS, scenario(*entries), seed=7, clock=clock)
    host = ModbusHost(fleet, clock=clock, host=HOST, first_port=0, units_per_port=per_port,
                      stats=Stats())  # fmt: skip
    stop, listening = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(host.run(stop, listening=listening))
        await listening.wait()
        try:
            yield host, fleet
        finally:
            stop.set()


def link_to(
    host: ModbusHost, number: int, timeout_s: float = 2.0
) -> tuple[ModbusLink, SunSpecUnit]:
    place = host.places[UNITS.ids[number]]
    link = ModbusLink(HOST, place.port, timeout_s=timeout_s, monotonic=time.monotonic)
    return link, SunSpecUnit(link, place.unit)


def adapter_of(host: ModbusHost, *numbers: int, timeout_s: float = 0.5) -> ModbusAdapter:
    endpoints = []
    for number in numbers:
        place, name = host.places[UNITS.ids[number]], UNITS.ids[number]
        profile = DeviceProfile(
            device_id=name, protocol="modbus", min_kw=Kw(float(UNITS.low_kw[number])),
            max_kw=Kw(float(UNITS.high_kw[number])), lease=LeaseKind.REVERT_TIMER, lease_s=2.0,
            telemetry_s=0.2,
        )  # fmt: skip
        endpoints.append(
            ModbusEndpoint(
                device_id=name, host=HOST, port=place.port, unit=place.unit,
                role="battery" if UNITS.kinds[number] == BATTERY else "inverter",
                serial=serial_of(name), profile=profile,
            )
        )  # fmt: skip
    return ModbusAdapter(endpoints, clock=WallClock(), time_map=IdentityTime(), timeout_s=timeout_s)


@asynccontextmanager
async def driven(host: ModbusHost, *numbers: int) -> AsyncIterator[tuple[ModbusAdapter, ListSink]]:
    adapter, sink, ready = adapter_of(host, *numbers), ListSink(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(adapter.run(sink, ready=ready.set))
        await asyncio.wait_for(ready.wait(), 10)
        yield adapter, sink
        running.cancel()


async def applied(adapter: ModbusAdapter, number: int, kw: float, **more: Any) -> Any:
    wanted = setpoint(kw, device_id=UNITS.ids[number], lease_s=2.0, **more)
    [outcome] = [one async for batch in adapter.issue([wanted]) for one in batch]
    return outcome


@pytest.mark.parametrize("per_port", [1, 5])
async def test_each_unit_is_a_sunspec_device_to_whoever_asks(per_port: int) -> None:
    async with served(per_port=per_port) as (host, _):
        assert len({place.port for place in host.places.values()}) == -(-COUNT // per_port)
        for number in (0, 4, 5, COUNT - 1):
            link, unit = link_to(host, number)
            common = await unit.read(1)
            assert common["SN"] == serial_of(UNITS.ids[number])
            if UNITS.kinds[number] == BATTERY:
                stored = float((await unit.read(713))["WHAvail"])
                assert stored == pytest.approx(UNITS.stored_kwh[number] * 1000.0, abs=1.0)
            else:
                assert await unit.read(103)
            link.close()


async def test_a_foreign_client_reads_and_is_refused_what_is_not_there() -> None:
    async with served(per_port=5) as (host, _):
        client = AsyncModbusTcpClient(HOST, port=host.places[UNITS.ids[0]].port, timeout=0.3,
                                      retries=0)  # fmt: skip
        assert await client.connect()
        found = await client.read_holding_registers(40_000, count=2, device_id=3)
        assert found.registers == [0x5375, 0x6E53]
        beyond = await client.read_holding_registers(60_000, count=2, device_id=3)
        assert beyond.exception_code == 2
        with pytest.raises(Exception, match="No response"):
            await client.read_holding_registers(40_000, count=2, device_id=6)
        client.close()


async def test_a_setpoint_moves_the_battery_until_its_timer_reverts_it() -> None:
    async with served() as (host, fleet), driven(host, B) as (adapter, _):
        await eventually(lambda: adapter.connected(UNITS.ids[B]), what="the battery")
        assert isinstance(await applied(adapter, B, 2.0), Applied)
        assert fleet.commanded_kw(B) == 2.0
        await eventually(lambda: fleet.core.plant.power_kw[B] > 0.0, what="its power")
        await eventually(lambda: fleet.commanded_kw(B) is None, what="its timer")
        await eventually(lambda: fleet.core.plant.power_kw[B] == 0.0, what="its fallback")


async def test_a_ceiling_holds_an_inverter_down_until_its_timer_ends() -> None:
    async with served() as (host, fleet), driven(host, PV) as (adapter, _):
        await eventually(lambda: fleet.core.plant.power_kw[PV] > 1.0, what="sunshine")
        await eventually(lambda: adapter.connected(UNITS.ids[PV]), what="the inverter")
        assert isinstance(await applied(adapter, PV, 0.5), Applied)
        sunny = float(fleet.core.plant.power_kw[PV])
        await eventually(lambda: fleet.core.plant.power_kw[PV] < sunny - 0.4, what="the ceiling")
        await eventually(lambda: fleet.commanded_kw(PV) is None, what="its timer")
        await eventually(lambda: fleet.core.plant.power_kw[PV] > sunny - 0.2, what="the sun")


async def test_drop_is_a_unit_that_times_out_and_its_neighbour_goes_on() -> None:
    entry = f"fault: drop, at: 2, until: 60, devices: {{ids: [{UNITS.ids[B]}]}}"
    async with (
        served(entry, per_port=COUNT) as (host, fleet),
        driven(host, B, BATTERIES[1]) as (adapter, sink),
    ):
        await eventually(lambda: fleet.core.effects.drops[B] == 1.0, what="the fault")
        await eventually(lambda: (UNITS.ids[B], FlagKind.TIMES_OUT) in sink.notices, what="a flag")
        assert isinstance(await applied(adapter, B, 1.0), Unreachable | Unconfirmed)
        assert isinstance(await applied(adapter, BATTERIES[1], 1.0, id="spt_2"), Applied)
        assert {name for name, _ in sink.notices} == {UNITS.ids[B]}


async def test_delay_is_an_answer_that_comes_late() -> None:
    entry = f"fault: delay, by: 0.6, at: 0, until: 60, devices: {{ids: [{UNITS.ids[B]}]}}"
    async with served(entry) as (host, fleet):
        await eventually(lambda: fleet.core.effects.late_s[B] == 0.6, what="the fault")
        link, unit = link_to(host, B, timeout_s=0.2)
        with pytest.raises(LinkError):
            await unit.read(713)
        link.close()
        link, unit = link_to(host, B, timeout_s=3.0)
        began = time.monotonic()
        assert "W" in await unit.read(701)
        assert time.monotonic() - began > 0.6
        link.close()


async def test_a_reboot_ends_connections_and_forgets_what_was_enabled() -> None:
    entry = f"fault: reboot, down: 2, at: 3, devices: {{ids: [{UNITS.ids[B]}]}}"
    async with served(entry) as (host, fleet):
        link, unit = link_to(host, B, timeout_s=0.3)
        fleet._units[B]._put(704, "WSetEna", 1)
        fleet._units[B]._put(704, "WSet", 1000.0)
        fleet._driven.add(B)
        await eventually(lambda: fleet.core.plant.power_kw[B] == 1.0, what="its power")
        await eventually(lambda: fleet.away(B), what="the reboot")
        with pytest.raises(LinkError):
            await unit.read(713)
        link.close()
        await eventually(lambda: not fleet.away(B), what="its return")
        link, unit = link_to(host, B)
        assert not (await unit.read(704))["WSetEna"]
        link.close()
        assert fleet.commanded_kw(B) is None


async def test_a_storm_ends_every_connection_and_they_are_taken_again() -> None:
    async with (
        served("fault: reconnect_storm, at: 3", per_port=4) as (host, _),
        driven(host, *BATTERIES[:3]) as (adapter, sink),
    ):
        stats = host._stats
        await eventually(lambda: stats.losses >= 1, what="the storm")
        lost_at = len(sink.readings)
        await eventually(
            lambda: {r.series for r in sink.readings[lost_at + 5 :]}
            == {UNITS.ids[n] for n in BATTERIES[:3]},
            what="readings of everybody",
        )  # fmt: skip
        assert all(adapter.connected(UNITS.ids[n]) for n in BATTERIES[:3])


def stepped(*entries: str, seconds: int, kw: float | None = None) -> ModbusFleet:
    """Units in virtual time, all told to hold a power from the second step on."""
    fleet = ModbusFleet(UNITS, scenario(*entries), seed=7)
    for second in range(seconds):
        if second == 2 and kw is not None:
            for number in BATTERIES:
                fleet._units[number]._put(704, "WSet", kw * 1000.0)
                fleet._units[number]._put(704, "WSetEna", 1)
                fleet._driven.add(number)
        fleet.step()
    return fleet


def shown_w(fleet: ModbusFleet, number: int) -> int:
    """Power as the unit's model 701 says it."""
    unit = fleet._units[number]
    address = unit._address[701]
    place = (address + load_model(701).points["W"].offset).to_bytes(2, "big")
    answer = fleet.answer(number, _READ, place + b"\x00\x01")
    assert answer is not None
    return int.from_bytes(answer[1][2:4], "big", signed=True)


def test_stick_lie_and_clamp_show_in_the_registers() -> None:
    only = f"at: 1, until: 100, devices: {{ids: [{UNITS.ids[B]}]}}"
    for fault, true_kw, shown in (
        ("stick", 0.0, 0), ("stick, part: reading", 2.0, 0), ("lie", 0.0, 2_000),
        ("lie, factor: 1.5", 2.0, 3_000), ("clamp, share: 0.4", 0.8, 800),
    ):  # fmt: skip
        fleet = stepped(f"fault: {fault}, {only}", seconds=10, kw=2.0)
        assert fleet.core.plant.power_kw[B] == pytest.approx(true_kw), fault
        assert shown_w(fleet, B) == shown, fault
        other = BATTERIES[1]
        assert shown_w(fleet, other) == 2_000


def test_replay_answers_with_old_registers_until_it_ends() -> None:
    only = f"at: 1, until: 6, devices: {{ids: [{UNITS.ids[B]}]}}"
    fleet = ModbusFleet(UNITS, scenario(f"fault: replay, {only}"), seed=7)
    for _ in range(2):
        fleet.step()
    assert shown_w(fleet, B) == 0
    fleet.core.commanded_kw[B] = 2.0
    for _ in range(3):
        fleet.step()
    assert fleet.core.plant.power_kw[B] == 2.0
    assert shown_w(fleet, B) == 0
    for _ in range(3):
        fleet.step()
    assert shown_w(fleet, B) == 2_000


def test_a_fleet_s_settings_are_the_gateway_s(tmp_path: Any) -> None:
    mqtt = populate("mqtt", 20, seed=7)
    places = {name: {"host": HOST, "port": 1502, "unit": n + 1, "serial": serial_of(name)}
              for n, name in enumerate(UNITS.ids)}  # fmt: skip
    path = tmp_path / "flexway.toml"
    path.write_text(to_toml({
        "lab": True,
        "mqtt": {"port": 1883, "tls": False,
                 "devices": mqtt_devices(mqtt, organisation="org_s", telemetry_s=10.0)},
        "modbus": {"devices": modbus_devices(UNITS, places, organisation="org_s",
                                             telemetry_s=5.0)},
    }))  # fmt: skip
    settings = read_settings(path, {}).settings
    assert settings is not None
    assert [one.device_id for one in settings.mqtt.devices] == list(mqtt.ids)
    assert [one.device_id for one in settings.modbus.devices] == list(UNITS.ids)
