"""A gateway and an edge node on a real Mosquitto: births, data, commands, gaps, deaths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiomqtt
import pytest

from adapters.mqtt.sparkplug_payload import Metric
from adapters.mqtt.sparkplug_topic import State, decode_state, encode_state, state_topic
from firmware_sim.devices.battery import BatterySpec
from firmware_sim.servers.sparkplug_unit import DECLARED
from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.errors import ConfigError, DeviceError
from marketplace_core.units import Kw
from marketplace_core.verification.flags import FlagKind
from tests.harness.benches import HERE, HOST, issue, setpoint
from tests.harness.clocks import WallClock, eventually
from tests.harness.mqtt import Mosquitto, Relay
from tests.harness.sparkplug import HOST_ID, SparkplugRig, binding, host, sparkplug_rig

pytestmark = pytest.mark.process


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with Mosquitto(tmp_path) as broker:
        yield broker.port


@pytest.fixture
async def rig(port: int) -> AsyncIterator[SparkplugRig]:
    async with sparkplug_rig(port, answer_s=30.0) as made:
        yield made


@contextmanager
def impatient(rig: SparkplugRig) -> Iterator[None]:
    """A device has half a second to answer: for one that will not, or only to deny."""
    patience, rig.adapter._driver._ack_timeout_s = rig.adapter._driver._ack_timeout_s, 0.5
    yield
    rig.adapter._driver._ack_timeout_s = patience


async def set_to(rig: SparkplugRig, power_kw: float, number: int = 1) -> SetpointOutcome:
    one = setpoint(number, order_id=f"ord_{number}", power_kw=Kw(power_kw))
    return (await issue(rig, one))[f"spt_{number}"]


async def reads(rig: SparkplugRig, power_kw: float) -> None:
    await eventually(
        lambda: power_kw in [one.power_kw for one in rig.sink.readings], what=f"{power_kw} kW"
    )


async def test_a_battery_is_driven_and_measured(rig: SparkplugRig) -> None:
    rig.battery.step(WallClock().now())
    outcome = await set_to(rig, -2.0)
    assert isinstance(outcome, Applied)
    assert outcome.read_back_kw == -2.0
    assert outcome.lease_remaining_s == 600.0
    for _ in range(3):
        await asyncio.sleep(0.05)
        rig.node.report(*rig.battery.step(WallClock().now()))
    await eventually(lambda: len(rig.sink.readings) >= 3, what="readings")
    charged = [one.soc_kwh for one in rig.sink.readings]
    assert charged == sorted(charged)
    assert rig.sink.readings[-1].power_kw < 0
    assert BatterySpec().capacity_kwh > charged[-1] > 3.0
    assert rig.sink.quarantined == []
    assert rig.adapter.gaps == {}


async def test_a_lost_message_is_noticed_and_a_rebirth_follows(rig: SparkplugRig) -> None:
    before = rig.node.births
    rig.node.lose_messages(1)
    rig.node.measure(-1.0)
    rig.node.measure(-1.5)
    await eventually(lambda: rig.node.births > before, what="a rebirth")
    await rig.present()
    rig.node.measure(-2.5)
    await reads(rig, -2.5)
    assert rig.adapter.gaps == {HERE: 1}
    assert rig.sink.quarantined == []


async def test_a_node_dies_and_returns_with_what_it_measured_meanwhile(rig: SparkplugRig) -> None:
    rig.node.measure(-1.0)
    rig.node.lose_link()
    await rig.absent()
    assert rig.sink.notices == [(HERE, FlagKind.OFFLINE)]
    assert isinstance(await set_to(rig, -2.0), Unreachable)
    with pytest.raises(DeviceError):
        await rig.adapter.read_back(HERE)
    for power_kw in (-3.0, -3.5):
        rig.node.measure(power_kw)
        await asyncio.sleep(0.01)
    assert -3.5 not in [one.power_kw for one in rig.sink.readings]
    rig.node.go_online()
    await rig.present()
    await reads(rig, -3.0)
    await reads(rig, -3.5)
    assert isinstance(await set_to(rig, -2.0), Applied)


async def test_a_device_behind_the_node_goes_and_comes(rig: SparkplugRig) -> None:
    rig.node.die_behind()
    await rig.absent()
    assert rig.sink.notices == [(HERE, FlagKind.OFFLINE)]
    assert isinstance(await set_to(rig, -2.0), Unreachable)
    rig.node.be_born_again()
    await rig.present()
    assert isinstance(await set_to(rig, -2.0), Applied)


async def test_refused_clamped_silent_and_gone_are_told_apart(rig: SparkplugRig) -> None:
    rig.battery._accepts = lambda kw: "too much" if kw < -6 else ""
    with impatient(rig):
        refused = await set_to(rig, -6.5, 1)
    assert isinstance(refused, Refused)
    assert "setpoint is 0, not -6.5" in refused.evidence
    assert isinstance(await set_to(rig, -5.0, 2), Applied)

    obey = rig.battery.obey

    def clamp(written: object) -> list[str]:
        told = obey(written)
        rig.battery.values["Control/Setpoint"] = min(4000, rig.battery.values["Control/Setpoint"])
        return told

    rig.battery.obey = clamp
    clamped = await asyncio.wait_for(set_to(rig, -5.5, 3), 20)  # not when its time is over
    assert isinstance(clamped, Refused)
    assert "setpoint is -4, not -5.5" in clamped.evidence
    # What it made of the command does not stay in force.
    await eventually(lambda: rig.battery.commanded_kw() is None, what="its fallback")

    rig.node.obeys = False
    with impatient(rig):
        silent = await set_to(rig, -3.0, 4)
    assert isinstance(silent, Unconfirmed)
    assert "no report within 0.5 s" in silent.reason
    async with asyncio.TaskGroup() as tasks:
        pending = tasks.create_task(set_to(rig, -3.0, 5))
        await eventually(lambda: rig.node.ignored == 2, what="the command")
        rig.node.lose_link()
    assert isinstance(pending.result(), Unconfirmed)
    assert "went away" in pending.result().reason


async def test_a_device_that_takes_the_switch_and_not_the_setpoint_is_switched_off_again(
    rig: SparkplugRig,
) -> None:
    obey = rig.battery.obey

    def switch_only(written: Iterable[Metric]) -> list[str]:
        setpoint_alias = DECLARED["Control/Setpoint"][0]
        return [*obey([one for one in written if one.alias != setpoint_alias]), "Control/Setpoint"]

    rig.battery.obey = switch_only
    with impatient(rig):
        refused = await set_to(rig, -3.0)
    assert isinstance(refused, Refused)
    assert refused.evidence == "setpoint is 0, not -3"
    await eventually(lambda: rig.battery.commanded_kw() is None, what="its fallback")


async def test_a_release_overtakes_a_setpoint_that_waits(rig: SparkplugRig) -> None:
    assert isinstance(await set_to(rig, -2.0), Applied)
    rig.node.obeys = False
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(set_to(rig, -3.0))
        queued = tasks.create_task(set_to(rig, -4.0))
        await eventually(lambda: rig.node.ignored == 1, what="the command")
        rig.node.obeys = True
        released = await rig.adapter.release(HERE, order_id="ord_1", revision=0)
    assert isinstance(released, Applied)
    assert isinstance(waiting.result(), Unconfirmed)
    assert isinstance(queued.result(), Unreachable)
    assert rig.battery.commanded_kw() is None


async def test_without_refresh_the_device_falls_back_by_itself(rig: SparkplugRig) -> None:
    short = setpoint(power_kw=Kw(-2.0), lease_s=1.0)
    assert isinstance((await issue(rig, short))["spt_1"], Applied)
    assert (await rig.adapter.read_back(HERE)).setpoint_id == "spt_1"
    await eventually(lambda: rig.battery.commanded_kw() is None, what="its fallback")

    reported = rig.adapter._fleet.bound[HERE].reported.values
    await eventually(lambda: reported["enable"] == 0.0, what="its report")
    assert not (await rig.adapter.read_back(HERE)).active
    assert {"effect": "fallback"} in rig.log


async def test_a_device_without_switch_or_heartbeat_is_driven_by_its_setpoint(port: int) -> None:
    plain = binding(HERE, without=["enable", "heartbeat"], fallback_kw=Kw(0.0))
    async with sparkplug_rig(port, plain) as rig:
        rig.battery.values["Control/Enable"] = True
        assert isinstance(await set_to(rig, -2.0), Applied)
        assert isinstance(await set_to(rig, -2.0), Applied)  # the refresh of a lease
        assert (await rig.adapter.read_back(HERE)).setpoint_kw == -2.0
        released = await rig.adapter.release(HERE, order_id="ord_1", revision=0)
        assert isinstance(released, Applied)
        assert not (await rig.adapter.read_back(HERE)).active


async def test_a_broker_of_mqtt_3_1_1_will_do(port: int) -> None:
    async with sparkplug_rig(port, version=4, primary_host=HOST_ID) as rig:
        assert isinstance(await set_to(rig, -2.0), Applied)
        rig.node.measure(-2.0)
        await reads(rig, -2.0)


async def test_an_edge_node_that_is_the_battery_itself_is_driven_by_ncmd(port: int) -> None:
    async with sparkplug_rig(port, binding(HERE, behind="")) as rig:
        assert isinstance(await set_to(rig, -2.0), Applied)
        rig.node.measure(-2.0)
        await reads(rig, -2.0)
        rig.node.lose_link()
        await rig.absent()
        rig.node.go_online()
        await rig.present()
        assert rig.battery.commanded_kw() == -2.0


async def test_a_birth_answers_no_command(rig: SparkplugRig) -> None:
    rig.node.obeys = False
    with impatient(rig):
        async with asyncio.TaskGroup() as tasks:
            lost = tasks.create_task(set_to(rig, -3.0))
            await eventually(lambda: rig.node.ignored == 1, what="the command")
            rig.node.be_born_again()
    assert isinstance(lost.result(), Unconfirmed)  # it may still be on its way


async def test_a_lost_link_of_ours_is_followed_by_a_rebirth(port: int) -> None:
    async with Relay(port) as relay, sparkplug_rig(port, gateway_port=relay.port) as rig:
        before = rig.node.births
        with relay.down():
            await rig.absent()
            assert isinstance(await set_to(rig, -2.0), Unreachable)
            rig.node.measure(-1.0)  # nobody hears it: there is no queue for QoS 0
        await rig.present()
        assert rig.node.births > before
        assert isinstance(await set_to(rig, -2.0), Applied)


async def test_noise_is_put_aside_and_the_rest_goes_on(rig: SparkplugRig, port: int) -> None:
    topic = f"spBv1.0/plant/DDATA/node-{HERE}/bess"
    async with aiomqtt.Client(HOST, port) as client:
        await client.publish(topic, b"\xff\x00nonsense")
        await client.publish(f"spBv1.0/plant/WHAT/node-{HERE}", b"")
    await eventually(lambda: len(rig.sink.quarantined) == 2, what="quarantine")
    source, reason, evidence = rig.sink.quarantined[0]
    assert (source, evidence) == (topic, b"\xff\x00nonsense")
    assert "malformed" in reason
    rig.node.measure(-2.5)
    await reads(rig, -2.5)


async def test_nodes_of_a_primary_host_wait_for_its_word(port: int) -> None:
    async with sparkplug_rig(port, primary_host=HOST_ID) as rig:
        assert rig.node.births >= 1
    async with asyncio.TaskGroup() as tasks:
        lonely = tasks.create_task(rig.node.run(HOST, port))
        births = rig.node.births
        await asyncio.sleep(0.3)
        assert rig.node.births == births  # the last word, retained, is that we are gone
        lonely.cancel()


class States:
    """What the broker says about the host, in order."""

    def __init__(self) -> None:
        self.heard: list[State] = []

    async def watch(self, port: int) -> None:
        async with aiomqtt.Client(HOST, port) as client:
            await client.subscribe(state_topic(HOST_ID), qos=1)
            async for message in client.messages:
                state = decode_state(bytes(message.payload))
                if state not in self.heard[-1:]:  # said again, as an old word came back
                    self.heard.append(state)

    async def saw(self, *online: bool) -> None:
        await eventually(
            lambda: [state.online for state in self.heard][-len(online) :] == list(online),
            what=f"STATE {online}",
        )


async def test_the_host_says_that_it_is_there_and_its_will_that_it_is_gone(port: int) -> None:
    states = States()
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(states.watch(port))
        async with Relay(port) as relay, sparkplug_rig(port, gateway_port=relay.port) as rig:
            await states.saw(True)
            with relay.down():
                await states.saw(True, False)
            await states.saw(True, False, True)
            first, gone, back = states.heard[-3:]
            assert first.timestamp == gone.timestamp < back.timestamp
            async with aiomqtt.Client(HOST, port) as other:
                late = encode_state(gone)
                await other.publish(state_topic(HOST_ID), late, qos=1, retain=True)
            await states.saw(False, True)  # it does not let that stand
            await rig.present()
        await states.saw(True, False)
        watch.cancel()


def test_a_binding_that_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="bound twice"):
        host(1, binding("a"), binding("a"))
    with pytest.raises(ConfigError, match="lease or heartbeat"):
        host(1, binding("a", without=["lease", "heartbeat"]))
