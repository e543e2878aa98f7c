"""Faults on purpose behind real servers: a Will that speaks, noise, replays, a silent unit."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest

from adapters.modbus.link import LinkError, ModbusLink
from adapters.modbus.unit import SunSpecUnit
from adapters.mqtt.wire import (
    Stored,
    WireError,
    decode_status,
    decode_telemetry,
    encode,
    split_topic,
    topic,
)
from firmware_sim.links.mqtt import MqttLink
from firmware_sim.links.openadr import OpenAdrLink
from firmware_sim.planning import Planned, Request, plan
from firmware_sim.plant import Minutes, Plant
from firmware_sim.records import forget
from firmware_sim.servers.modbus import MeterUnit, ModbusServer
from firmware_sim.servers.openadr import SiteEvent
from firmware_sim.world import Fault
from marketplace_core.simtime import AffineTime
from marketplace_core.verification.flags import FlagKind
from tests.harness.days import DATA
from tests.harness.lab import HOST, mosquitto

pytestmark = pytest.mark.process
MINUTE = timedelta(minutes=1)


class Watcher:
    """A subscriber that confirms what it could read, as a gateway would."""

    def __init__(self) -> None:
        self.sequences: Counter[tuple[str, int]] = Counter()
        self.unreadable: Counter[str] = Counter()
        self.presence: dict[str, list[bool]] = {}
        self.replayed: Counter[str] = Counter()
        self._high: dict[str, int] = {}

    async def run(self, port: int, listening: asyncio.Event) -> None:
        async with aiomqtt.Client(HOST, port) as client:
            await client.subscribe("flexway/v1/#", qos=1)
            listening.set()
            async for message in client.messages:
                await self._take(client, message.topic.value, bytes(message.payload))

    async def _take(self, client: aiomqtt.Client, name: str, payload: bytes) -> None:
        owner, device, kind = split_topic(name)
        if kind == "status":
            self.presence.setdefault(device, []).append(decode_status(payload).online)
        if kind != "telemetry":
            return
        try:
            told = decode_telemetry(payload)
        except WireError:
            self.unreadable[device] += 1
            return
        numbers = [reading.sequence for reading in told.readings]
        self.replayed[device] += (told.oldest or 0) > numbers[-1] or (
            numbers[-1] < self._high.get(device, -1) - 1
        )
        self._high[device] = max(self._high.get(device, -1), numbers[-1])
        self.sequences.update((device, number) for number in numbers)
        stored = Stored(boot=told.boot, through=numbers[-1])
        await client.publish(topic(owner, device, "stored"), encode(stored), qos=1)


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another party's state has no event
            await asyncio.sleep(0.01)


class Play:
    """Chargers on a real broker, stepped by the test."""

    def __init__(self, planned: Planned, faults: tuple[Fault, ...], port: int) -> None:
        world = msgspec.structs.replace(planned.world, faults=faults)
        start = planned.scenario.market.sim_start
        self.plant = Plant(planned.scenario, world, DATA)
        self.sums = Minutes(start)
        time_map = AffineTime(start, datetime.now(UTC), 240.0)
        self.link = MqttLink(
            planned.scenario.chargers, faults, broker=(HOST, port), time_map=time_map, record=forget
        )

    def minute(self) -> None:
        since, until = self.plant.at, self.plant.at + MINUTE
        self.link.disturb(since)
        moments = self.plant.step(until, self.link.commands())
        readings = self.sums.add(since, until, moments)
        self.link.report({reading.series: reading for reading in readings})


def fault(planned: Planned, number: int, kind: FlagKind, first: int, last: int) -> Fault:
    start = planned.scenario.market.sim_start
    moments = tuple(start + minute * MINUTE for minute in range(first, last, 2))
    return Fault(
        device=planned.scenario.chargers[number].id, kind=kind, at=start + first * MINUTE,
        until=start + last * MINUTE, moments=moments if kind is not FlagKind.OFFLINE else (),
    )  # fmt: skip


async def test_chargers_go_away_send_noise_and_repeat_themselves_and_lose_nothing(
    tmp_path: Path,
) -> None:
    planned = plan(Request(seed=1, homes=0, chargers=3, sites=0), DATA)
    gone, noisy, stale = (charger.id for charger in planned.scenario.chargers)
    faults = (
        fault(planned, 0, FlagKind.OFFLINE, 3, 9),
        fault(planned, 1, FlagKind.MALFORMED, 2, 8),
        fault(planned, 2, FlagKind.REPLAYS, 6, 10),
    )
    watcher, listening = Watcher(), asyncio.Event()
    with mosquitto(tmp_path) as port:
        play = Play(planned, faults, port)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(watcher.run(port, listening)),
                tasks.create_task(play.link.run(lambda: None)),
            ]
            await listening.wait()
            await eventually(lambda: len(watcher.presence) == 3)
            for minute in range(14):
                play.minute()
                present = {noisy, stale} if 3 <= minute < 9 else {gone, noisy, stale}
                await eventually(
                    lambda m=minute, p=present: all((d, m) in watcher.sequences for d in p)
                )
                if minute == 4:
                    # nobody said goodbye: the broker found the link lost and spoke the Will
                    await eventually(lambda: watcher.presence[gone] == [True, False])
            for task in running:
                task.cancel()
    assert watcher.presence == {gone: [True, False, True], noisy: [True], stale: [True]}
    assert watcher.unreadable == {noisy: 3}
    assert watcher.replayed[stale] == 2
    assert {number for device, number in watcher.sequences if device == gone} == set(range(14))


async def test_a_silent_unit_does_not_answer_until_it_does_again() -> None:
    from firmware_sim.links.modbus import ModbusLink as Homes  # noqa: PLC0415 - two of one name

    planned = plan(Request(seed=1, homes=1, chargers=0, sites=0), DATA)
    home, start = planned.scenario.homes[0], planned.scenario.market.sim_start
    fault = Fault(device=home.battery, kind=FlagKind.TIMES_OUT, at=start, until=start + MINUTE)
    homes, listening = Homes(planned.scenario.homes, [fault], record=forget), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(homes.run(listening.set))
        await listening.wait()
        place = homes.addresses()["modbus"]
        port, unit = place[home.battery]["port"], place[home.battery]["unit"]
        link = ModbusLink(HOST, port, timeout_s=0.3, monotonic=time.monotonic)
        homes.disturb(start)
        with pytest.raises(LinkError):
            await SunSpecUnit(link, unit).read(713)
        assert "W" in await SunSpecUnit(link, place[home.meter]["unit"]).read(203)
        link.close()
        link = ModbusLink(HOST, port, timeout_s=5.0, monotonic=time.monotonic)
        homes.disturb(start + MINUTE)
        assert "WHAvail" in await SunSpecUnit(link, unit).read(713)
        link.close()
        serving.cancel()


async def test_meters_count_tenths_of_a_watt_hour() -> None:
    unit = MeterUnit("m", serial="S1")
    unit.publish(power_kw=-1.5, imported_kwh=5000.12345, exported_kwh=4999.99996)
    async with ModbusServer({1: unit}) as server:
        link = ModbusLink(HOST, server.port, timeout_s=5.0, monotonic=time.monotonic)
        read = await SunSpecUnit(link, 1).read(203)
        link.close()
    assert read["TotWhImp"] == pytest.approx(5_000_123.45, abs=0.051)
    assert read["TotWhExp"] == pytest.approx(5_000_000.0, abs=0.051)
    assert read["W"] == 1500


def test_a_site_opts_out_of_its_event_and_joins_others() -> None:
    planned = plan(Request(seed=1, homes=0, chargers=0, sites=1), DATA)
    site, start = planned.scenario.sites[0], planned.scenario.market.sim_start
    fault = Fault(device=site.id, kind=FlagKind.OPTS_OUT, at=start, until=start + 120 * MINUTE)
    time_map = AffineTime(start, datetime(2026, 1, 1, tzinfo=UTC), 240.0)
    noted: list[dict[str, Any]] = []
    link = OpenAdrLink(
        [site], [fault], vtn_url="http://x", time_map=time_map,
        record=lambda _device, _action, /, **detail: noted.append(detail),
    )  # fmt: skip
    decide = link._vens[site.id]._decide
    for after, joins in ((60, False), (119, False), (120, True)):
        begins = time_map.to_wall(start + after * MINUTE)
        event = SiteEvent("e", 0, "far", begins, begins + timedelta(seconds=20), 10.0)
        assert decide(event) is joins
    assert [detail["opted_in"] for detail in noted] == [False, False, True]
