"""The MQTT adapter against simulated devices, over a real Mosquitto and the embedded broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiomqtt
import pytest

from adapters.mqtt import wire
from adapters.mqtt.adapter import MqttAdapter
from adapters.mqtt.adapter import MqttDevice as Binding
from adapters.mqtt.link import MqttBroker
from firmware_sim.servers.mqtt import MqttDevice
from gateway.children import Child
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.errors import DeviceError
from marketplace_core.units import Kw
from tests.harness.clocks import IdentityTime, WallClock, eventually
from tests.harness.lab import HOST, mosquitto
from tests.harness.sinks import ListSink

pytestmark = pytest.mark.process


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Port and protocol level of a running broker."""
    if request.param == "mosquitto":
        with mosquitto(tmp_path) as port:
            yield port, 5
        return
    ready = tmp_path / "broker.ready.json"
    child = Child(
        "broker", ["gateway.broker", "--port", "0", "--lab", "--ready-file", str(ready)], tmp_path
    )
    yield child.wait_ready()["port"], 4
    assert child.stop() == 0


def profile(device_id: str) -> DeviceProfile:
    return DeviceProfile(
        device_id=device_id, protocol="mqtt", min_kw=Kw(-7.0), max_kw=Kw(0.0),
        control=ControlKind.LIMIT, lease=LeaseKind.TIME_TO_LIVE, lease_s=600.0,
    )  # fmt: skip


def setpoint(device_id: str, power_kw: float = -2.0, **changes: object) -> Setpoint:
    now = datetime.now(UTC)
    fields = {
        "id": f"spt_{device_id}", "order_id": "ord_1", "revision": 0, "device_id": device_id,
        "power_kw": Kw(power_kw), "valid_from": now, "valid_until": now + timedelta(minutes=10),
        "lease_s": 600.0,
    }  # fmt: skip
    return Setpoint(**{**fields, **changes})


class Rig:
    """An adapter, its sink and some devices on one broker."""

    def __init__(self, port: int, version: int, *, names: tuple[str, ...], timeout: float) -> None:
        self.port = port
        self.sink = ListSink()
        self.devices = {name: MqttDevice(name, "org_v", boot=1) for name in names}
        self.adapter = MqttAdapter(
            MqttBroker(host=HOST, port=port, client_id="gateway", version=version),
            [
                Binding(device_id=name, organisation="org_v", profile=profile(name))
                for name in (*names, "ev-silent")
            ],
            clock=WallClock(),
            time_map=IdentityTime(),
            ack_timeout_s=timeout,
        )

    async def issue(self, *setpoints: Setpoint) -> dict[str, SetpointOutcome]:
        outcomes = [o async for batch in self.adapter.issue(setpoints) for o in batch]
        assert len(outcomes) == len(setpoints)
        return {outcome.device_id: outcome for outcome in outcomes}


@asynccontextmanager
async def rig(broker: tuple[int, int], *names: str, answer_s: float = 5.0) -> AsyncIterator[Rig]:
    made = Rig(*broker, names=names, timeout=answer_s)
    ready = asyncio.Event()
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = [tasks.create_task(made.adapter.run(made.sink, ready=ready.set))]
        running += [tasks.create_task(d.run(HOST, made.port)) for d in made.devices.values()]
        await asyncio.wait_for(ready.wait(), 10)
        await eventually(
            lambda: all(made.adapter.connected(name) for name in names), what="presence"
        )
        yield made
        for task in running:
            task.cancel()


async def test_setpoint_is_applied_read_back_and_released(broker: tuple[int, int]) -> None:
    async with rig(broker, "ev-1") as lab:
        outcome = (await lab.issue(setpoint("ev-1")))["ev-1"]
        assert isinstance(outcome, Applied)
        assert outcome.read_back_kw == -2.0
        assert outcome.lease_remaining_s == pytest.approx(600.0, abs=5)
        assert lab.devices["ev-1"].commanded_kw() == -2.0
        answer = await lab.adapter.read_back("ev-1")
        assert (answer.active, answer.setpoint_id) == (True, "spt_ev-1")
        released = await lab.adapter.release("ev-1", order_id="ord_1", revision=0)
        assert isinstance(released, Applied)
        assert lab.devices["ev-1"].commanded_kw() is None
        assert not (await lab.adapter.read_back("ev-1")).active


async def test_bounds_and_time_are_checked_before_the_wire(broker: tuple[int, int]) -> None:
    async with rig(broker, "ev-1") as lab:
        assert isinstance((await lab.issue(setpoint("ev-1", -7.5)))["ev-1"], Refused)
        past = datetime.now(UTC) - timedelta(seconds=1)
        late = await lab.issue(setpoint("ev-1", valid_until=past))
        assert isinstance(late["ev-1"], Unconfirmed)
        assert lab.devices["ev-1"].commanded_kw() is None


async def test_silent_device_is_unconfirmed_and_does_not_hold_up_its_neighbour(
    broker: tuple[int, int],
) -> None:
    async with rig(broker, "ev-1", answer_s=0.5) as lab:
        outcomes = await lab.issue(setpoint("ev-silent"), setpoint("ev-1"))
        assert isinstance(outcomes["ev-1"], Applied)
        assert isinstance(outcomes["ev-silent"], Unconfirmed)
        with pytest.raises(DeviceError):
            await lab.adapter.read_back("ev-silent")


async def test_device_that_its_will_declared_offline_is_unreachable(
    broker: tuple[int, int],
) -> None:
    async with rig(broker, "ev-1") as lab:
        lab.devices["ev-1"].online = False
        lab.devices["ev-1"].link_changed.set()
        will = wire.encode(wire.Status(online=False))
        async with aiomqtt.Client(HOST, lab.port) as other:
            await other.publish(wire.topic("org_v", "ev-1", "status"), will, qos=1, retain=True)
            await eventually(lambda: not lab.adapter.connected("ev-1"), what="offline")
        assert isinstance((await lab.issue(setpoint("ev-1")))["ev-1"], Unreachable)


async def test_older_revision_is_stale(broker: tuple[int, int]) -> None:
    async with rig(broker, "ev-1") as lab:
        await lab.issue(setpoint("ev-1", revision=3))
        stale = (await lab.issue(setpoint("ev-1", -1.0, id="spt_old", revision=2)))["ev-1"]
        assert isinstance(stale, Refused)
        assert lab.devices["ev-1"].commanded_kw() == -2.0


def reading(sequence: int) -> list[object]:
    start_us = 1_500_000_000_000_000 + sequence * 60_000_000
    return [sequence, start_us, 60.0, -6600.0, None, None, True]


async def test_malformed_telemetry_is_quarantined_and_the_rest_goes_on(
    broker: tuple[int, int],
) -> None:
    async with rig(broker, "ev-1") as lab:
        device = lab.devices["ev-1"]
        poison = [b"", b"\xc1", b"{", b"\x81\xa1v\x02", b"\x00" * (wire.MAX_PAYLOAD + 1)]
        for payload in poison:
            device.inject("telemetry", payload)
        device.report(reading(0))
        await eventually(lambda: len(lab.sink.readings) == 1, what="the good reading")
        assert len(lab.sink.quarantined) == len(poison)
        assert lab.sink.quarantined[1][2] == b"\xc1"


async def test_device_keeps_readings_until_they_are_stored(broker: tuple[int, int]) -> None:
    async with rig(broker, "ev-1") as lab:
        device = lab.devices["ev-1"]
        lab.sink.gate.clear()
        device.report(reading(0))
        await eventually(lambda: lab.sink.asked == 1, what="the commit to be asked for")
        assert device.unconfirmed == 1
        lab.sink.gate.set()
        await eventually(lambda: device.unconfirmed == 0, what="`stored`")


async def test_lease_that_nobody_refreshes_ends_on_the_device() -> None:
    now = [0.0]
    device = MqttDevice("ev-1", "org_v", boot=1, monotonic=lambda: now[0])
    command = {"kind": "set", "id": "spt_1", "order_id": "ord_1", "revision": 0,
               "power_w": -2000.0, "lease_s": 30.0, "valid_for_s": 600.0}  # fmt: skip
    assert device._obey(command) == ("applied", "")
    now[0] = 29.9
    assert device.commanded_kw() == -2.0
    assert device._obey(command) == ("applied", "")  # a refresh
    now[0] = 59.8
    assert device.commanded_kw() == -2.0
    now[0] = 59.91
    assert device.commanded_kw() is None


async def test_broker_keeps_a_message_that_was_not_committed(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as port:
        made = Rig(port, 5, names=("ev-1",), timeout=5.0)
        made.sink.gate.clear()
        async with aiomqtt.Client(HOST, port) as device:
            ready = asyncio.Event()
            sample = wire.WireReading(0, 1_500_000_000_000_000, 60.0, -1.0)
            payload = wire.encode(wire.Telemetry(boot=1, readings=[sample]))
            first = asyncio.create_task(made.adapter.run(made.sink, ready=ready.set))
            await asyncio.wait_for(ready.wait(), 10)
            await device.publish(wire.topic("org_v", "ev-1", "telemetry"), payload, qos=1)
            await eventually(lambda: made.sink.asked == 1, what="the commit to be asked for")
            first.cancel()  # the gateway goes before the commit
            await asyncio.gather(first, return_exceptions=True)
            assert made.sink.readings == []
        again = Rig(port, 5, names=("ev-1",), timeout=5.0)
        second = asyncio.create_task(again.adapter.run(again.sink, ready=ready.set))
        await eventually(lambda: len(again.sink.readings) == 1, what="the redelivery")
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
