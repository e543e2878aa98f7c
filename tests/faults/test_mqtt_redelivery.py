"""Promise 1 over MQTT: the broker, then the device, hear only of what is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import pytest

from adapters.mqtt import wire
from marketplace_core.dispatch.setpoint import Applied, Unreachable
from marketplace_core.errors import StoreError
from tests.harness.clocks import eventually
from tests.harness.lab import HOST
from tests.harness.mqtt import (
    ORG,
    Mosquitto,
    Relay,
    Rig,
    embedded,
    gateway,
    reading,
    rig,
    setpoint,
)
from tests.harness.sinks import ListSink

pytestmark = pytest.mark.process
Broker = tuple[int, int]


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    if request.param == "embedded":
        with embedded(tmp_path) as port:
            yield port, 4
        return
    with Mosquitto(tmp_path) as running:
        yield running.port, 5


def telemetry(sequence: int) -> bytes:
    sample = wire.WireReading(sequence, 1_500_000_000_000_000 + sequence, 60.0, -1.0)
    return wire.encode(wire.Telemetry(boot=1, readings=[sample]))


async def test_broker_sends_again_what_a_dead_gateway_did_not_commit(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as running:
        first, sink = gateway(running.port, ["ev-1"]), ListSink()
        sink.gate.clear()
        ready = asyncio.Event()
        async with aiomqtt.Client(HOST, running.port) as device, asyncio.TaskGroup() as tasks:
            task = tasks.create_task(first.run(sink, ready=ready.set))
            await asyncio.wait_for(ready.wait(), 10)
            await device.publish(wire.topic(ORG, "ev-1", "telemetry"), telemetry(0), qos=1)
            await eventually(lambda: sink.asked == 1, what="the commit to be asked for")
            task.cancel()
        assert sink.readings == []
        again, fresh = gateway(running.port, ["ev-1"]), ListSink()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(again.run(fresh, ready=ready.set))
            await eventually(lambda: len(fresh.readings) == 1, what="the redelivery")
            task.cancel()


async def test_link_cut_before_the_commit_brings_the_message_again(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as running:
        async with (
            Relay(running.port) as relay,
            rig(running.port, "ev-1", gateway_port=relay.port) as lab,
        ):
            lab.sink.gate.clear()
            lab.devices["ev-1"].inject("telemetry", telemetry(0))
            await eventually(lambda: lab.sink.asked == 1, what="the commit to be asked for")
            with relay.down():
                await eventually(lambda: not lab.adapter.connected("ev-1"), what="the loss")
                refused = (await lab.issue(setpoint("ev-1")))["ev-1"]
                assert isinstance(refused, Unreachable)
            lab.sink.gate.set()
            await eventually(lambda: len(lab.sink.readings) == 2, what="the redelivery")
            assert {(r.boot, r.sequence) for r in lab.sink.readings} == {(1, 0)}


async def test_nothing_is_lost_when_the_link_is_cut_whatever_the_broker_keeps(
    broker: Broker,
) -> None:
    # amqtt 0.12 forgets what was in flight when a connection ends: the device does not.
    port, version = broker
    async with (
        Relay(port) as relay,
        rig(port, "ev-1", version=version, gateway_port=relay.port) as lab,
    ):
        device = lab.devices["ev-1"]
        for number in range(300):
            device.report(reading(number))
            if number % 100 == 50:
                with relay.down():
                    await eventually(lambda: not lab.adapter._telemetry.connected, what="the loss")
        await eventually(lambda: device.unconfirmed == 0, seconds=20, what="`stored`")
        assert {r.sequence for r in lab.sink.readings} == set(range(300))
        assert lab.adapter.gaps == {}
        await lab.present()
        assert isinstance((await lab.issue(setpoint("ev-1")))["ev-1"], Applied)


async def test_commands_pass_while_telemetry_waits_for_the_disk(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as running:
        async with rig(running.port, "ev-1", receive_maximum=5) as lab:
            lab.sink.gate.clear()
            for number in range(20):
                lab.devices["ev-1"].inject("telemetry", telemetry(number))
            await eventually(lambda: len(held(lab)) == 5, what="a full window")
            # Nothing of it is acknowledged, so no more telemetry comes; commands do not care.
            outcome = (await lab.issue(setpoint("ev-1")))["ev-1"]
            assert isinstance(outcome, Applied)
            assert len(held(lab)) == 5
            lab.sink.gate.set()
            await eventually(lambda: len(lab.sink.readings) == 20, what="the rest")


def held(lab: Rig) -> list[object]:
    """Messages from the broker that are neither committed nor acknowledged."""
    return lab.adapter._intake._waiting


async def test_commit_that_fails_is_tried_again_and_only_then_confirmed(broker: Broker) -> None:
    class Stubborn(ListSink):
        failures = 1

        async def store(self, readings: object) -> None:
            if self.failures:
                self.failures -= 1
                raise StoreError("the disk is full")
            await super().store(readings)

    port, version = broker
    async with rig(port, "ev-1", version=version) as lab:
        lab.adapter._intake._sink = sink = Stubborn()
        lab.devices["ev-1"].report(reading(0))
        await eventually(lambda: lab.devices["ev-1"].unconfirmed == 0, what="`stored`")
        assert sink.failures == 0
        assert {r.sequence for r in sink.readings} == {0}


async def test_device_sends_again_what_a_dead_broker_lost(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path)
    with mosquitto:
        async with rig(mosquitto.port, "ev-1") as lab:
            device = lab.devices["ev-1"]
            device.report(reading(0))
            await eventually(lambda: device.unconfirmed == 0, what="`stored`")
            mosquitto.stop()
            for number in (1, 2, 3):
                device.report(reading(number))
            await eventually(lambda: not lab.adapter.connected("ev-1"), what="the loss")
            mosquitto.start()
            await eventually(lambda: device.unconfirmed == 0, seconds=20, what="`stored`")
            assert {r.sequence for r in lab.sink.readings} == {0, 1, 2, 3}
            assert lab.adapter.gaps == {}
            await lab.present()
            assert isinstance((await lab.issue(setpoint("ev-1")))["ev-1"], Applied)


async def test_message_the_broker_dropped_is_not_confirmed_and_comes_again(
    broker: Broker,
) -> None:
    port, version = broker
    async with rig(port, "ev-1", version=version) as lab:
        device = lab.devices["ev-1"]
        device.report(reading(0))
        await eventually(lambda: device.unconfirmed == 0, what="`stored`")
        device._sent_through = 1  # as if 1 had been handed to a broker that then lost it
        device.report(reading(1))
        device.report(reading(2))
        await eventually(lambda: device.unconfirmed == 0, what="1 to be sent again")
        assert {r.sequence for r in lab.sink.readings} == {0, 1, 2}
        assert lab.adapter.gaps == {}


async def test_replay_is_passed_on_and_confirmed_again(broker: Broker) -> None:
    port, version = broker
    async with rig(port, "ev-1", version=version) as lab:
        device = lab.devices["ev-1"]
        lab.sink.gate.clear()
        device.report(reading(0))
        await eventually(lambda: lab.sink.asked == 1, what="the commit to be asked for")
        device.replay()
        lab.sink.gate.set()
        await eventually(lambda: len(lab.sink.readings) >= 2, what="the replay")
        await eventually(lambda: device.unconfirmed == 0, what="`stored`")
        assert {(r.boot, r.sequence) for r in lab.sink.readings} == {(1, 0)}
        assert lab.adapter.gaps == {}
