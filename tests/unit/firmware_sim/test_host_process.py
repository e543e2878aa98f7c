"""The devices as a real process: they speak, obey, come back, and leave nothing behind."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest

from adapters.modbus.link import ModbusLink
from adapters.modbus.unit import SunSpecUnit
from adapters.mqtt.wire import Command, WireReading, decode_telemetry, encode, topic
from firmware_sim.counterfactual import minutes
from firmware_sim.host import HostOptions, check_options
from firmware_sim.planning import Planned, Request, plan
from firmware_sim.scenario import Charger, save
from firmware_sim.world import Fault
from marketplace_core.errors import ConfigError
from marketplace_core.simtime import AffineTime
from tests.harness.days import DATA
from tests.harness.lab import HOST, free_port, mosquitto

pytestmark = pytest.mark.process
SPEED = 300.0


@pytest.fixture(scope="module")
def planned() -> Planned:
    """Three chargers that nothing is wrong with."""
    return sound(plan(Request(seed=1, homes=0, chargers=3, sites=0), DATA))


def sound(planned: Planned, *faults: Fault) -> Planned:
    """A day with the faults given and no others."""
    return Planned(planned.scenario, msgspec.structs.replace(planned.world, faults=faults))


def undisturbed(planned: Planned, count: int) -> dict[str, list[float]]:
    """What every device does in the first minutes when nobody commands it."""
    found: dict[str, list[float]] = {}
    for readings in itertools.islice(minutes(*planned, DATA), count):
        for one in readings:
            found.setdefault(one.series, []).append(one.power_kw)
    return found


def charging(planned: Planned) -> Charger:
    """A charger whose car charges through the first half hour."""
    powers = undisturbed(planned, 30)
    return next(one for one in planned.scenario.chargers if max(powers[one.id]) < -0.1)


@dataclass
class Devices:
    """A running `firmware_sim run`."""

    process: subprocess.Popen[bytes]
    folder: Path

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]

    def wait(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, (self.folder / "out.log").read_text()
            assert time.monotonic() < deadline, "gave up waiting"
            time.sleep(0.02)

    def power(self, device: str) -> list[float]:
        rows = self.lines("truth.jsonl")
        return [row["power_kw"] for row in rows if row["device"] == device and "power_kw" in row]


@contextmanager
def running(planned: Planned, folder: Path, port: int, *extra: str) -> Iterator[Devices]:
    start = planned.scenario.market.sim_start
    save(planned.scenario, folder / "scenario.json")
    save(planned.world, folder / "world.json")
    arguments = [
        "--scenario", str(folder / "scenario.json"), "--world", str(folder / "world.json"),
        "--ready", str(folder / "ready.json"),
        "--market-epoch", start.isoformat(), "--wall-epoch", repr(time.time()),
        "--speed", str(SPEED), "--broker-port", str(port), "--log", str(folder), *extra,
    ]  # fmt: skip
    with (folder / "out.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "firmware_sim", "run", *arguments], stdout=log, stderr=log
        )
    try:
        devices = Devices(process, folder)
        devices.wait((folder / "ready.json").exists)
        yield devices
    finally:
        process.kill()
        process.wait(10)


def stored_kwh(planned: Planned) -> float:
    """Usable energy in the first home's battery when the day begins."""
    home = planned.scenario.homes[0]
    return home.battery_spec.usable_kwh(planned.world.homes[home.id].stored_kwh)


async def take(
    client: aiomqtt.Client, device: str, enough: Callable[[dict[int, WireReading]], bool]
) -> dict[int, WireReading]:
    seen: dict[int, WireReading] = {}
    async for message in client.messages:
        if f"/{device}/" in message.topic.value:
            telemetry = decode_telemetry(bytes(message.payload))
            seen |= {reading.sequence: reading for reading in telemetry.readings}
            if enough(seen):
                break
    return seen


async def test_chargers_report_every_minute_from_the_first_and_stop_at_once(
    planned: Planned, tmp_path: Path
) -> None:
    device = charging(planned)
    with mosquitto(tmp_path) as port:
        async with aiomqtt.Client(HOST, port) as client:
            await client.subscribe(topic(device.seller, device.id, "telemetry"), qos=1)
            with running(planned, tmp_path, port) as devices:
                seen = await take(client, device.id, lambda seen: len(seen) >= 8)
                devices.process.send_signal(signal.SIGTERM)
                assert devices.process.wait(10) == 0
    own = undisturbed(planned, len(seen))[device.id]
    assert sorted(seen) == list(range(len(seen)))
    for reading in seen.values():
        assert reading.power_w == pytest.approx(1000.0 * own[reading.sequence])
        assert reading.available
        assert reading.wanted_wh
        assert reading.leaves_us
        assert reading.leaves_us > reading.start_us
    assert seen[1].start_us - seen[0].start_us == pytest.approx(60e6 / SPEED, abs=2)
    assert seen[0].seconds == pytest.approx(60 / SPEED)
    assert devices.power(device.id)[: len(own)] == pytest.approx(own, abs=1e-6)
    assert json.loads((tmp_path / "ready.json").read_text())["modbus"] == {}


async def test_a_command_acts_once_and_its_lease_ends_by_itself(
    planned: Planned, tmp_path: Path
) -> None:
    device = charging(planned)
    command = Command(
        kind="set", id="sp_1", order_id="ord_1", power_w=-5000.0, lease_s=1.5, ttl_s=5.0,
        valid_for_s=60.0,
    )  # fmt: skip
    with mosquitto(tmp_path) as port, running(planned, tmp_path, port) as devices:
        devices.wait(lambda: len(devices.power(device.id)) > 1)
        async with aiomqtt.Client(HOST, port) as client:
            await client.subscribe(topic(device.seller, device.id, "status"), qos=1)
            await anext(aiter(client.messages))
            for _ in range(2):
                where = topic(device.seller, device.id, "command")
                await client.publish(where, encode(command), qos=1)
        devices.wait(lambda: devices.power(device.id)[-1] == pytest.approx(-5.0))
        devices.wait(lambda: devices.power(device.id)[-1] > -4.0)
        wire = [row for row in devices.lines("wire.jsonl") if row["device"] == device.id]
        own = undisturbed(planned, 200)
        for other in planned.scenario.chargers:
            if other.id != device.id:
                done = devices.power(other.id)
                assert done == pytest.approx(own[other.id][: len(done)], abs=1e-6)
    assert sum(row["action"] == "command" for row in wire) == 2


async def test_a_broker_that_comes_late_still_gets_the_first_minute(
    planned: Planned, tmp_path: Path
) -> None:
    port, device = free_port(), planned.scenario.chargers[0]
    with running(planned, tmp_path, port) as devices:
        devices.wait(lambda: len(devices.power(device.id)) >= 5)
        late = (f"listener {port} {HOST}", "allow_anonymous true")
        with mosquitto(tmp_path, *late):
            async with aiomqtt.Client(HOST, port) as client:
                await client.subscribe(topic(device.seller, device.id, "telemetry"), qos=1)
                seen = await take(client, device.id, lambda seen: {0, 4} <= set(seen))
    assert set(range(5)) <= set(seen)


async def test_a_home_is_driven_over_modbus_and_reverts_by_itself(tmp_path: Path) -> None:
    one = sound(plan(Request(seed=1, homes=1, chargers=0, sites=0), DATA))
    home = one.scenario.homes[0]
    with running(one, tmp_path, free_port()) as devices:
        where = json.loads((tmp_path / "ready.json").read_text())["modbus"]
        assert {name: place["unit"] for name, place in where.items()} == home.units
        port = where[home.battery]["port"]
        link = ModbusLink(HOST, port, timeout_s=5.0, monotonic=time.monotonic)
        battery = SunSpecUnit(link, where[home.battery]["unit"])
        meter = SunSpecUnit(link, where[home.meter]["unit"])
        await battery.verify(where[home.battery]["serial"])
        devices.wait(lambda: len(devices.power(home.meter)) > 1)
        before = devices.power(home.meter)[-1]
        shown = (await meter.read(203))["W"]
        assert shown == pytest.approx(-1000.0 * before, abs=2)
        assert (await battery.read(713))["WHAvail"] == pytest.approx(1000 * stored_kwh(one), abs=1)
        await battery.write(704, {"WSetRvrtTms": 2, "WSetMod": 1, "WSet": 1000.0, "WSetEna": 1})
        devices.wait(lambda: abs(devices.power(home.battery)[-1] - 1.0) < 0.1)
        assert devices.power(home.meter)[-1] - before == pytest.approx(1.0, abs=0.2)
        devices.wait(lambda: devices.power(home.battery)[-1] == 0.0)
        link.close()
        wire = [row for row in devices.lines("wire.jsonl") if row["device"] == home.battery]
    effects = [row["commanded_kw"] for row in wire if row["action"] == "effect"]
    assert effects == [1.0, None]
    assert [row["received"] for row in wire if row["action"] == "command"].count("write") == 4


async def test_before_its_first_step_a_battery_shows_its_charge(tmp_path: Path) -> None:
    one = sound(plan(Request(seed=1, homes=1, chargers=0, sites=0), DATA))
    home = one.scenario.homes[0]
    early = one.scenario.market.sim_start - timedelta(hours=2)
    with running(one, tmp_path, free_port(), "--market-epoch", early.isoformat()) as devices:
        where = json.loads((tmp_path / "ready.json").read_text())["modbus"][home.battery]
        link = ModbusLink(HOST, where["port"], timeout_s=5.0, monotonic=time.monotonic)
        stored = (await SunSpecUnit(link, where["unit"]).read(713))["WHAvail"]
        link.close()
        assert devices.lines("truth.jsonl") == []
    assert stored == pytest.approx(1000 * stored_kwh(one), abs=1)


def test_until_ends_the_run_with_every_minute_of_it(planned: Planned, tmp_path: Path) -> None:
    until = planned.scenario.market.sim_start + timedelta(minutes=10)
    with running(planned, tmp_path, free_port(), "--until", until.isoformat()) as devices:
        assert devices.process.wait(30) == 0
    truth = devices.lines("truth.jsonl")
    assert len(truth) == 3 * 10
    assert {row["device"] for row in truth} == {one.id for one in planned.scenario.chargers}


def options(speed: float, folder: Path, **more: Any) -> HostOptions:
    epoch = datetime(2017, 7, 20, tzinfo=UTC)
    time_map = AffineTime(epoch, epoch, speed)
    return HostOptions(
        data=folder, ready=folder, log=folder, truth=folder, time_map=time_map, **more
    )  # fmt: skip


def test_a_speed_that_a_revert_timer_cannot_follow_is_refused(tmp_path: Path) -> None:
    homes, _ = plan(Request(seed=1, homes=1, chargers=0, sites=0), DATA)
    check_options(homes, options(240, tmp_path))
    check_options(homes, options(900, tmp_path))
    with pytest.raises(ConfigError, match="revert timer of an inverter needs 2 s; use --speed 900"):
        check_options(homes, options(901, tmp_path))


@pytest.mark.parametrize(
    ("counts", "option"),
    [
        ({"chargers": 1, "sites": 0}, "--broker-port"),
        ({"chargers": 0, "sites": 1}, "--vtn-url"),
        ({"chargers": 4, "sites": 0}, "--api-url"),
        ({"chargers": 0, "sites": 0}, "--broker-port"),
    ],
)
def test_a_missing_counterpart_is_named(
    tmp_path: Path, counts: dict[str, int], option: str
) -> None:
    scenario, _ = plan(Request(homes=0, **counts), DATA)
    broker = {"broker_port": 1883} if option == "--api-url" else {}
    uplink = {} if any(counts.values()) else {"uplink_port": 0}
    with pytest.raises(ConfigError, match=option):
        check_options(scenario, options(180, tmp_path, **broker, **uplink))
