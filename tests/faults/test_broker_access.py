"""What `flexway broker acl` grants and denies, tried by foreign clients at a real Mosquitto."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiomqtt
import pytest

from adapters.mqtt.wire import Kind, topic
from firmware_sim.servers.mqtt import MqttDevice
from marketplace_core.dispatch.setpoint import Applied
from tests.harness.access import (
    GATEWAY,
    KINDS,
    Guarded,
    entered,
    guarded,
    lost_without_goodbye,
    password_of,
    run_acl,
    settings_file,
    tell,
    until,
)
from tests.harness.clocks import eventually
from tests.harness.lab import HOST
from tests.harness.mqtt import ORG, gateway, setpoint
from tests.harness.sinks import ListSink

pytestmark = pytest.mark.process
ONE, OTHER = "ev-1", "ev-2"
FROM_DEVICES: tuple[Kind, ...] = ("telemetry", "ack", "status")
TO_DEVICES: tuple[Kind, ...] = ("command", "stored")
BAIT = b"bait"


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    options = ("--monitor", "scraper")
    with guarded(tmp_path, request.param, [ONE, OTHER], *options) as running:
        yield running


def of(device: str, kind: Kind) -> str:
    return topic(ORG, device, kind)


async def hear(client: aiomqtt.Client, *filters: str) -> None:
    for name in filters:
        await client.subscribe(name, qos=1)


async def test_a_device_says_and_hears_what_it_must(broker: Guarded) -> None:
    async with broker.client(GATEWAY) as far, broker.client(ONE) as device:
        await hear(far, *(f"flexway/v1/+/+/+/{kind}" for kind in FROM_DEVICES))
        await hear(device, *(of(ONE, kind) for kind in TO_DEVICES))
        for kind in FROM_DEVICES:
            await device.publish(of(ONE, kind), BAIT, qos=1, retain=kind == "status")
            assert await until(far, of(ONE, kind)) == []
        for kind in TO_DEVICES:
            await far.publish(of(ONE, kind), BAIT, qos=1)
            assert await until(device, of(ONE, kind)) == []


async def test_a_device_writes_nothing_outside_of_its_prefix(broker: Guarded) -> None:
    forbidden = [
        *(of(OTHER, kind) for kind in (*FROM_DEVICES, *TO_DEVICES)),
        *(of(ONE, kind) for kind in TO_DEVICES),
        of(ONE, "status").replace(ORG, "org_other"), f"{of(ONE, 'status')}/more",
        of(OTHER, "telemetry").replace(OTHER, ONE), "flexway", "else", "$SYS/broker/uptime",
        "$CONTROL/dynamic-security/v1",
    ]  # fmt: skip
    async with broker.client(GATEWAY) as far, broker.client(OTHER) as victim:
        await hear(far, *(f"flexway/v1/+/+/+/{kind}" for kind in FROM_DEVICES))
        await hear(victim, *(of(OTHER, kind) for kind in TO_DEVICES))
        async with broker.client(ONE) as thief:
            await hear(thief, *(of(ONE, kind) for kind in TO_DEVICES))
            for name in forbidden:
                for retain in (False, True):
                    await thief.publish(name, BAIT, qos=1, retain=retain)
            await thief.publish(of(ONE, "telemetry"), b"mine", qos=1)
            await far.publish(of(ONE, "command"), b"end", qos=1)
            assert await until(thief, of(ONE, "command")) == []
        assert await until(far, of(ONE, "telemetry")) == []
        await far.publish(of(OTHER, "command"), b"end", qos=1)
        assert await until(victim, of(OTHER, "command")) == []
    async with broker.client(OTHER) as again:  # nothing was retained for it either
        await hear(again, *(of(OTHER, kind) for kind in TO_DEVICES))
        async with broker.client(GATEWAY) as far:
            await far.publish(of(OTHER, "command"), b"end", qos=1)
            assert await until(again, of(OTHER, "command")) == []


async def test_a_device_hears_nothing_outside_of_its_prefix(broker: Guarded) -> None:
    filters = [
        "#", "+/+/+/+/+/+", "flexway/#", "flexway/v1/+/+/+/command", "flexway/v1/+/+/+/telemetry",
        f"flexway/v1/{ORG}/#", "$SYS/#", "$CONTROL/#",
        *(of(OTHER, kind) for kind in (*FROM_DEVICES, *TO_DEVICES)),
        *(of(ONE, kind) for kind in FROM_DEVICES),
        f"$share/g/{of(OTHER, 'command')}", "$share/g/flexway/v1/+/+/+/telemetry", "$share/g/#",
    ]  # fmt: skip
    async with broker.client(GATEWAY) as far, broker.client(OTHER) as victim:
        await victim.publish(of(OTHER, "status"), BAIT, qos=1, retain=True)
        async with broker.client(ONE) as thief:
            await hear(thief, *filters, of(ONE, "command"))
            for kind in TO_DEVICES:
                await far.publish(of(OTHER, kind), BAIT, qos=1)
            for kind in FROM_DEVICES:
                await victim.publish(of(OTHER, kind), BAIT, qos=1, retain=kind == "status")
            await far.publish(of(ONE, "command"), b"end", qos=1)
            assert await until(thief, of(ONE, "command")) == []


async def test_a_will_speaks_within_the_prefix_only(broker: Guarded) -> None:
    async with broker.client(GATEWAY) as far, broker.client(OTHER) as victim:
        await hear(far, "flexway/v1/+/+/+/status")
        await hear(victim, of(OTHER, "command"))
        for name in (of(OTHER, "command"), of(OTHER, "status"), of(ONE, "status")):
            will = aiomqtt.Will(name, b"gone", qos=1, retain=True)
            async with lost_without_goodbye(broker.client(ONE, will=will)) as thief:
                await thief.publish(of(ONE, "ack"), b"there", qos=1)
        assert await until(far, of(ONE, "status")) == []
        await far.publish(of(OTHER, "command"), b"end", qos=1)
        assert await until(victim, of(OTHER, "command")) == []


async def test_nobody_enters_without_a_login_of_its_own(broker: Guarded) -> None:
    assert await entered(broker.client(ONE))
    assert not await entered(broker.client(ONE, password=password_of(broker.out, OTHER)))
    assert not await entered(broker.client(ONE, password=""))
    for port in (broker.gateway_port, broker.device_port):
        assert not await entered(aiomqtt.Client(HOST, port, identifier=ONE, timeout=5))
        assert not await entered(aiomqtt.Client(HOST, port, username="who", password="x"))


@pytest.mark.parametrize("identifier", [OTHER, "gateway", "gateway-control"])
async def test_no_session_is_taken_over_with_its_client_id(
    broker: Guarded, identifier: str
) -> None:
    name = OTHER if identifier == OTHER else GATEWAY
    async with broker.client(name, identifier=identifier) as victim:
        await hear(victim, of(OTHER, "command") if name == OTHER else "flexway/v1/+/+/+/ack")
        await entered(broker.client(ONE, identifier=identifier))
        async with broker.client(ONE) as thief:
            await thief.publish(of(ONE, "ack"), b"end", qos=1)
        if name == OTHER:
            async with broker.client(GATEWAY) as far:
                await far.publish(of(OTHER, "command"), b"end", qos=1)
        ends = of(OTHER, "command") if name == OTHER else of(ONE, "ack")
        assert await until(victim, ends) == []  # still connected, still served


async def test_a_monitor_reads_the_brokers_figures_and_nothing_else(broker: Guarded) -> None:
    async with broker.client("scraper") as monitor, broker.client(ONE) as device:
        await hear(monitor, "#", "flexway/#")
        await device.publish(of(ONE, "status"), BAIT, qos=1, retain=True)
        await hear(monitor, "$SYS/#")
        seen = await until(monitor, "$SYS/broker/version")
        assert [name for name, _ in seen if not name.startswith("$SYS/")] == []


async def test_the_gateway_drives_a_device_by_these_rules(broker: Guarded) -> None:
    """The adapter with both of its sessions, and a device that is the simulator's."""
    adapter = gateway(
        broker.gateway_port, [ONE], username=GATEWAY, password=password_of(broker.out, GATEWAY)
    )
    device, sink, ready = MqttDevice(ONE, ORG, boot=1), ListSink(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        login = (ONE, password_of(broker.out, ONE))
        running = [
            tasks.create_task(adapter.run(sink, ready=ready.set)),
            tasks.create_task(device.run(HOST, broker.device_port, *login)),
        ]
        await asyncio.wait_for(ready.wait(), 10)
        await eventually(lambda: adapter.connected(ONE), what="presence")
        outcomes = [o async for batch in adapter.issue([setpoint(ONE)]) for o in batch]
        assert [type(one) for one in outcomes] == [Applied]
        assert device.commanded_kw() == -2.0
        device.report([0, 1_500_000_000_000_000, 60.0, -2000.0, None, None, True])
        await eventually(lambda: device.unconfirmed == 0, what="`stored`")
        assert [one.series for one in sink.readings] == [ONE]
        for task in running:
            task.cancel()


async def test_a_device_that_changes_hands_keeps_its_password_and_no_old_topic(
    broker: Guarded, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["broker"]
    password = password_of(broker.out, ONE)
    (broker.out / "handout" / f"{ONE}.password").unlink()  # it was taken to the device
    settings = settings_file(broker.folder, {ONE: "org_new", OTHER: ORG})
    await renew(broker, kind, settings)
    async with broker.client(GATEWAY) as far, broker.client(ONE, password=password) as device:
        await hear(far, "flexway/v1/+/+/+/ack")
        mine = topic("org_new", ONE, "ack")
        await device.publish(of(ONE, "ack"), BAIT, qos=1)
        await device.publish(mine, b"mine", qos=1)
        assert await until(far, mine) == []


async def renew(broker: Guarded, kind: str, settings: Path, *options: str) -> None:
    """Run the command again and let the broker know."""
    extra = ("--dynamic-security",) if kind == "dynamic" else ()
    done = run_acl(settings, broker.out, *options, *extra)
    assert done.exit_code == 0, done.output
    if kind == "dynamic":
        await asyncio.to_thread(tell, broker.gateway_port, broker.out)
    else:
        broker.broker.reload()
        await asyncio.sleep(0.2)  # it is done on the broker's next turn


async def test_a_device_that_left_is_shut_out_and_a_renewed_password_is_the_only_one(
    broker: Guarded, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["broker"]
    before = password_of(broker.out, ONE)
    left = broker.client(OTHER)
    held = [broker.client(name) for name in (ONE, OTHER)]
    for client in held:
        await client.__aenter__()
    settings = settings_file(broker.folder, {ONE: ORG})
    await renew(broker, kind, settings, "--rotate", ONE)
    for client in held:  # sessions that were begun with what holds no longer are ended
        with pytest.raises(aiomqtt.MqttError):
            await asyncio.wait_for(anext(aiter(client.messages)), 5)
        with suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)
    assert not await entered(left)
    assert not await entered(broker.client(ONE, password=before))
    assert await entered(broker.client(ONE))
