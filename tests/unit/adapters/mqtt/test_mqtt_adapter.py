"""The MQTT adapter against simulated devices, over a real Mosquitto and the embedded broker."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import aiomqtt
import pytest

from adapters.mqtt import wire
from marketplace_core.dispatch.setpoint import Applied, Refused, Unconfirmed, Unreachable
from marketplace_core.errors import ConfigError, DeviceError
from tests.harness.clocks import eventually
from tests.harness.lab import HOST
from tests.harness.mqtt import ORG, SILENT, Relay, gateway, reading, rig, setpoint
from tests.harness.sinks import ListSink

pytestmark = pytest.mark.process
Broker = tuple[int, int]


async def test_setpoint_is_applied_read_back_and_released(broker: Broker) -> None:
    async with rig(broker[0], "ev-1", version=broker[1]) as lab:
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


async def test_bounds_time_and_binding_are_checked_before_the_wire(broker: Broker) -> None:
    async with rig(broker[0], "ev-1", version=broker[1]) as lab:
        assert isinstance((await lab.issue(setpoint("ev-1", -7.5)))["ev-1"], Refused)
        past = datetime.now(UTC) - timedelta(seconds=1)
        late = await lab.issue(setpoint("ev-1", valid_until=past))
        assert isinstance(late["ev-1"], Unconfirmed)
        assert isinstance((await lab.issue(setpoint("ev-9")))["ev-9"], Refused)
        with pytest.raises(DeviceError):
            await lab.adapter.read_back("ev-9")
        assert lab.devices["ev-1"].commanded_kw() is None


async def test_device_never_heard_of_is_unreachable_and_holds_up_nobody(broker: Broker) -> None:
    async with rig(broker[0], "ev-1", version=broker[1], answer_s=0.5) as lab:
        outcomes = await lab.issue(setpoint(SILENT), setpoint("ev-1"))
        assert isinstance(outcomes["ev-1"], Applied)
        assert isinstance(outcomes[SILENT], Unreachable)
        with pytest.raises(DeviceError):
            await lab.adapter.read_back(SILENT)
        released = await lab.adapter.release(SILENT, order_id="ord_1", revision=0)
        assert isinstance(released, Unconfirmed)


async def test_device_that_does_not_answer_is_unconfirmed_and_drops_the_late_command(
    broker: Broker,
) -> None:
    async with rig(broker[0], "ev-1", "ev-2", version=broker[1], answer_s=0.3) as lab:
        busy = lab.devices["ev-1"]
        busy.working.clear()
        outcomes = await lab.issue(setpoint("ev-1"), setpoint("ev-2"))
        assert isinstance(outcomes["ev-2"], Applied)
        assert isinstance(outcomes["ev-1"], Unconfirmed)
        busy.working.set()
        again = (await lab.issue(setpoint("ev-1", -1.0, id="spt_next")))["ev-1"]
        assert isinstance(again, Applied)
        assert again.read_back_kw == -1.0


async def test_refusal_carries_its_reason(broker: Broker) -> None:
    async with rig(broker[0], "ev-1", version=broker[1]) as lab:
        lab.devices["ev-1"].control.accepts = lambda _kw: "the owner opted out"
        outcome = (await lab.issue(setpoint("ev-1")))["ev-1"]
        assert isinstance(outcome, Refused)
        assert outcome.reason == "the owner opted out"
        assert lab.devices["ev-1"].commanded_kw() is None


async def test_older_revision_is_stale(broker: Broker) -> None:
    async with rig(broker[0], "ev-1", version=broker[1]) as lab:
        await lab.issue(setpoint("ev-1", revision=3))
        stale = (await lab.issue(setpoint("ev-1", -1.0, id="spt_old", revision=2)))["ev-1"]
        assert isinstance(stale, Refused)
        assert lab.devices["ev-1"].commanded_kw() == -2.0


async def test_two_who_wait_for_the_same_setpoint_both_hear(broker: Broker) -> None:
    async with rig(broker[0], "ev-1", version=broker[1]) as lab:
        both = await asyncio.gather(lab.issue(setpoint("ev-1")), lab.issue(setpoint("ev-1")))
        assert [type(one["ev-1"]) for one in both] == [Applied, Applied]


async def test_will_of_a_cut_link_makes_a_device_unreachable(broker: Broker) -> None:
    port, version = broker
    async with (
        Relay(port) as relay,
        rig(port, "ev-1", version=version, device_port=relay.port) as lab,
    ):
        with relay.down():
            await eventually(lambda: not lab.adapter.connected("ev-1"), what="the Will")
            assert isinstance((await lab.issue(setpoint("ev-1")))["ev-1"], Unreachable)
        # A device that tried to come back meanwhile was cut before the broker greeted it: its
        # client waits 10 s for that before it tries again.
        await lab.present(seconds=30.0)
        assert isinstance((await lab.issue(setpoint("ev-1")))["ev-1"], Applied)


async def test_device_that_says_goodbye_is_unreachable_until_it_is_back(broker: Broker) -> None:
    async with rig(broker[0], "ev-1", version=broker[1]) as lab:
        lab.devices["ev-1"].go_offline()
        await eventually(lambda: not lab.adapter.connected("ev-1"), what="goodbye")
        assert isinstance((await lab.issue(setpoint("ev-1")))["ev-1"], Unreachable)
        lab.devices["ev-1"].go_online()
        await lab.present()


async def test_malformed_telemetry_is_quarantined_and_the_rest_goes_on(broker: Broker) -> None:
    async with rig(broker[0], "ev-1", version=broker[1]) as lab:
        device = lab.devices["ev-1"]
        poison = [b"\xc1", b"{", b"\x81\xa1v\x02", b"\x00" * (wire.MAX_PAYLOAD + 1)]
        for payload in poison:
            device.inject("telemetry", payload)
        device.inject("ack", b"\xc1")
        device.report(reading(0))
        await eventually(lambda: len(lab.sink.readings) == 1, what="the good reading")
        await eventually(lambda: device.unconfirmed == 0, what="`stored`")
        assert len(lab.sink.quarantined) == len(poison) + 1
        source, reason, evidence = lab.sink.quarantined[0]
        assert source == wire.topic(ORG, "ev-1", "telemetry")
        assert reason.startswith("malformed telemetry")
        assert evidence == b"\xc1"


async def test_messages_of_nobody_we_know_are_quarantined(broker: Broker) -> None:
    async with (
        rig(broker[0], "ev-1", version=broker[1]) as lab,
        aiomqtt.Client(HOST, broker[0]) as stranger,
    ):
        good = wire.encode(wire.Telemetry(boot=1, readings=[]))
        for name in (
            wire.topic("org_x", "ev-1", "telemetry"),  # another's device under its own name
            wire.topic(ORG, "ev-9", "telemetry"),
            f"flexway/v1/{ORG}/zz/ev-1/telemetry",
        ):
            await stranger.publish(name, good, qos=1)
        await eventually(lambda: len(lab.sink.quarantined) == 3, what="the quarantine")
        assert lab.sink.readings == []


async def test_answer_of_another_device_does_not_count(broker: Broker) -> None:
    async with rig(broker[0], "ev-1", "ev-2", version=broker[1], answer_s=0.5) as lab:
        lab.devices["ev-1"].working.clear()
        forged = wire.encode(wire.Acknowledgement(id="spt_ev-1", status="applied", power_w=-1.0))
        async with asyncio.TaskGroup() as tasks:
            issued = tasks.create_task(lab.issue(setpoint("ev-1")))
            lab.devices["ev-2"].inject("ack", forged)
        assert isinstance(issued.result()["ev-1"], Unconfirmed)


async def test_device_keeps_readings_until_they_are_stored(broker: Broker) -> None:
    async with rig(broker[0], "ev-1", version=broker[1]) as lab:
        device = lab.devices["ev-1"]
        lab.sink.gate.clear()
        device.report(reading(0))
        await eventually(lambda: lab.sink.asked == 1, what="the commit to be asked for")
        assert device.unconfirmed == 1
        lab.sink.gate.set()
        await eventually(lambda: device.unconfirmed == 0, what="`stored`")


async def test_readings_lost_in_the_device_are_counted_as_gaps(broker: Broker) -> None:
    async with rig(broker[0], "ev-1", version=broker[1]) as lab:
        device = lab.devices["ev-1"]
        for number in (0, 1, 5, 6):
            device.report(reading(number))
            await eventually(lambda: device.unconfirmed == 0, what="`stored`")
        assert lab.adapter.gaps == {"ev-1": 3}


async def test_thousand_devices_are_served_through_a_window_of_twenty(broker: Broker) -> None:
    port, version = broker
    names = [f"ev-{number:04d}" for number in range(1000)]
    adapter = gateway(port, names, version=version, answer_s=20.0)
    seen: set[str] = set()
    ready = asyncio.Event()
    async with aiomqtt.Client(HOST, port, max_queued_outgoing_messages=0) as fleet:
        await fleet.subscribe("flexway/v1/+/+/+/command", qos=1)
        online = wire.encode(wire.Status(online=True))
        for name in names:
            await fleet.publish(wire.topic(ORG, name, "status"), online, qos=0, retain=True)

        async def answer() -> None:
            async for message in fleet.messages:
                command = wire.decode_command(bytes(message.payload))
                seen.add(command.id)
                reply = wire.Acknowledgement(id=command.id, status="applied")
                where = message.topic.value.replace("/command", "/ack")
                await fleet.publish(where, wire.encode(reply), qos=0)
                if len(seen) == len(names):
                    return  # by itself: aiomqtt can lose a cancellation that meets an answer

        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(adapter.run(ListSink(), ready=ready.set))
            answering = tasks.create_task(answer())
            await asyncio.wait_for(ready.wait(), 10)
            await eventually(
                lambda: all(adapter.connected(name) for name in names), what="the fleet"
            )
            outcomes = [
                o async for batch in adapter.issue([setpoint(n) for n in names]) for o in batch
            ]
            await answering
            running.cancel()
    assert [type(o) for o in outcomes] == [Applied] * len(names)
    assert len(seen) == len(names)


def test_name_that_cannot_stand_in_a_topic_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="ev/1"):
        gateway(1, ["ev/1"])
