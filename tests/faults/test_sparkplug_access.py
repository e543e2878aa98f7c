"""What `flexway broker acl` grants Sparkplug edge nodes, tried at a real Mosquitto.

Topics and who subscribes to what: Eclipse Sparkplug 3.0.0, chapter 4 and sections 5.1 to 5.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from firmware_sim.servers.sparkplug_unit import SparkplugBattery
from marketplace_core.dispatch.setpoint import Applied
from tests.harness.access import (
    GATEWAY,
    KINDS,
    Guarded,
    guarded,
    lost_without_goodbye,
    password_of,
    run_acl,
    settings_file,
    until,
)
from tests.harness.benches import HERE, setpoint
from tests.harness.clocks import eventually
from tests.harness.lab import HOST
from tests.harness.mqtt import ORG
from tests.harness.sinks import ListSink
from tests.harness.sparkplug import GROUP, HOST_ID, METRICS, binding, host, node

pytestmark = pytest.mark.process
NODE = f"node-{HERE}"
ONE, OTHER, NAMESAKE = f"{GROUP}.{NODE}", f"{GROUP}.node-b", f"elsewhere.{NODE}"
STATE = f"spBv1.0/STATE/{HOST_ID}"
END = f"spBv1.0/{GROUP}/NCMD/{NODE}"
BAIT = b"bait"


def bound(group: str, edge_node: str, device: str) -> dict[str, Any]:
    metrics = {
        role: {"metric": meaning.metric, "scale": meaning.scale}
        for role, meaning in METRICS.items()
    }
    profile = {"min_kw": -7.0, "max_kw": 7.0, "lease": "time_to_live", "lease_s": 600.0}
    return {
        "device_id": f"{group}-{edge_node}-{device or 'itself'}".replace(" ", "_"),
        "organisation": ORG,
        "dialect": "sparkplug", "group": group, "edge_node": edge_node,
        "sparkplug_device": device, "metrics": metrics, "profile": profile,
    }  # fmt: skip


DEVICES = [
    bound(GROUP, NODE, "bess"), bound(GROUP, NODE, "meter"), bound(GROUP, "node-b", ""),
    bound("elsewhere", NODE, "bess"),
]  # fmt: skip
MQTT = {"sparkplug_host": HOST_ID, "devices": DEVICES}


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(tmp_path, request.param, [], mqtt=MQTT) as running:
        yield running


def topics(group: str, edge_node: str, device: str = "bess") -> list[str]:
    """What an edge node says of itself and of a device, registered or not."""
    own = f"spBv1.0/{group}"
    return [
        *(f"{own}/{verb}/{edge_node}" for verb in ("NBIRTH", "NDATA", "NDEATH")),
        *(f"{own}/{verb}/{edge_node}/{device}" for verb in ("DBIRTH", "DDATA", "DDEATH")),
    ]


def commands(group: str, edge_node: str) -> list[str]:
    return [f"spBv1.0/{group}/NCMD/{edge_node}", f"spBv1.0/{group}/DCMD/{edge_node}/bess"]


async def hear(client: aiomqtt.Client, *filters: str) -> None:
    for name in filters:
        await client.subscribe(name, qos=1)


async def hear_all(client: aiomqtt.Client) -> None:
    """What the gateway subscribes to."""
    nodes = ((GROUP, NODE), (GROUP, "node-b"), ("elsewhere", NODE))
    await hear(client, *(f"spBv1.0/{group}/+/{name}/#" for group, name in nodes))


async def test_an_edge_node_says_and_hears_what_it_must(broker: Guarded) -> None:
    async with broker.client(GATEWAY) as far, broker.client(ONE) as edge:
        await hear_all(far)
        await hear(edge, f"spBv1.0/{GROUP}/NCMD/{NODE}", f"spBv1.0/{GROUP}/DCMD/{NODE}/#", STATE)
        for name in (*topics(GROUP, NODE), *topics(GROUP, NODE, "unregistered")):
            await edge.publish(name, BAIT, qos=1)
            assert await until(far, name) == []
        for name in (*commands(GROUP, NODE), STATE):
            await far.publish(name, BAIT, qos=1, retain=name == STATE)
            assert await until(edge, name) == []


async def test_an_edge_node_writes_nothing_outside_of_its_group_and_name(broker: Guarded) -> None:
    forbidden = [
        *topics(GROUP, "node-b"), *topics("elsewhere", NODE), *topics("nowhere", NODE),
        *commands(GROUP, NODE), *commands(GROUP, "node-b"), STATE, "spBv1.0/STATE/another",
        f"spBv1.0/{GROUP}/DDATA/{NODE}", f"spBv1.0/{GROUP}/NDATA/{NODE}/bess",
        f"spBv1.0/{GROUP}/DDATA/{NODE}/bess/more", "flexway/v1/org_v/00/ev-1/telemetry", "else",
    ]  # fmt: skip
    async with broker.client(GATEWAY) as far, broker.client(OTHER) as victim:
        await hear_all(far)
        await hear(victim, f"spBv1.0/{GROUP}/NCMD/node-b", STATE)
        async with broker.client(ONE) as thief:
            for name in forbidden:
                for retain in (False, True):
                    await thief.publish(name, BAIT, qos=1, retain=retain)
            await thief.publish(f"spBv1.0/{GROUP}/NDATA/{NODE}", b"mine", qos=1)
        assert await until(far, f"spBv1.0/{GROUP}/NDATA/{NODE}") == []
        await far.publish(f"spBv1.0/{GROUP}/NCMD/node-b", b"end", qos=1)
        assert await until(victim, f"spBv1.0/{GROUP}/NCMD/node-b") == []


async def test_an_edge_node_hears_nothing_outside_of_its_group_and_name(broker: Guarded) -> None:
    filters = [
        "#", "spBv1.0/#", f"spBv1.0/{GROUP}/#", "spBv1.0/+/NCMD/+", "spBv1.0/+/DCMD/+/+",
        "spBv1.0/STATE/#", "$share/g/spBv1.0/#", *commands(GROUP, "node-b"),
        *commands("elsewhere", NODE), *topics(GROUP, "node-b"), *topics(GROUP, NODE),
    ]  # fmt: skip
    async with broker.client(GATEWAY) as far, broker.client(ONE) as thief:
        await hear(thief, *filters, END)
        for name in (OTHER, NAMESAKE):
            async with broker.client(name) as victim:
                for topic in topics(*name.split(".", 1)):
                    await victim.publish(topic, BAIT, qos=1)
        for name in (*commands(GROUP, "node-b"), *commands("elsewhere", NODE)):
            await far.publish(name, BAIT, qos=1)
        await far.publish(END, b"end", qos=1)
        assert await until(thief, END) == []


async def test_a_death_certificate_speaks_of_its_own_node_only(broker: Guarded) -> None:
    async with broker.client(GATEWAY) as far:
        await hear_all(far)
        for name in (f"spBv1.0/{GROUP}/NDEATH/node-b", STATE, f"spBv1.0/{GROUP}/NDEATH/{NODE}"):
            will = aiomqtt.Will(name, b"gone", qos=1)
            async with lost_without_goodbye(broker.client(ONE, will=will)) as thief:
                await thief.publish(f"spBv1.0/{GROUP}/NDATA/{NODE}", b"there", qos=1)
            assert await until(far, f"spBv1.0/{GROUP}/NDATA/{NODE}") == []
        assert await until(far, f"spBv1.0/{GROUP}/NDEATH/{NODE}") == []


async def test_the_gateway_drives_an_edge_node_by_these_rules(broker: Guarded) -> None:
    """The adapter, and a node that is the simulator's and waits for its primary host."""
    device = binding(HERE)
    battery, sink, ready = SparkplugBattery(log=lambda _: None), ListSink(), asyncio.Event()
    edge = node(device, battery, primary_host=HOST_ID)
    adapter = host(
        broker.gateway_port, device, username=GATEWAY, password=password_of(broker.out, GATEWAY)
    )
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(adapter.run(sink, ready=ready.set)),
            tasks.create_task(
                edge.run(HOST, broker.device_port, ONE, password_of(broker.out, ONE))
            ),
        ]
        await eventually(lambda: adapter.connected(HERE), what="the birth")
        outcomes = [one async for batch in adapter.issue([setpoint()]) for one in batch]
        (outcome,) = outcomes
        assert isinstance(outcome, Applied)
        assert battery.commanded_kw() == outcome.read_back_kw
        for task in running:
            task.cancel()


def test_logins_of_edge_nodes_are_told_apart_from_devices_and_the_gateway(tmp_path: Path) -> None:
    twice = [bound("plant.a", "b", "x"), bound("plant", "a.b", "x")]
    done = run_acl(settings_file(tmp_path, {}, {**MQTT, "devices": twice}), tmp_path / "out")
    assert done.exit_code != 0
    assert "'plant.a.b' is the name of two logins" in str(done.exception)
    spaced = run_acl(
        settings_file(tmp_path, {}, {**MQTT, "devices": [bound("a plant", "n", "x")]}),
        tmp_path / "out",
    )
    assert "'a plant.n' cannot be a login" in str(spaced.exception)
