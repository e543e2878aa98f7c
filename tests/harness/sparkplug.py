"""A gateway and edge nodes that speak Sparkplug B, for the contract suite and the tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from adapters.mqtt.link import MqttBroker
from adapters.mqtt.sparkplug_adapter import SparkplugAdapter
from adapters.mqtt.sparkplug_binding import Meaning, SparkplugDevice
from firmware_sim.servers.sparkplug import SparkplugNode
from firmware_sim.servers.sparkplug_unit import SparkplugBattery
from marketplace_core.dispatch.profile import LeaseKind
from tests.harness.benches import AWAY, HERE, HOST, ORG, Bench, profile
from tests.harness.clocks import IdentityTime, WallClock, eventually
from tests.harness.sinks import ListSink

GROUP = "plant"
HOST_ID = "flexway-test"
METRICS = {
    "power": Meaning(metric="Inverter/Power", scale=-0.001),
    "soc": Meaning(metric="Battery/Stored"),
    "available": Meaning(metric="Battery/Ready"),
    "setpoint": Meaning(metric="Control/Setpoint", scale=-0.001),
    "enable": Meaning(metric="Control/Enable"),
    "lease": Meaning(metric="Control/Lease"),
    "heartbeat": Meaning(metric="Control/Heartbeat"),
}


def binding(
    device_id: str, *, without: Sequence[str] = (), behind: str = "bess", **fields: Any
) -> SparkplugDevice:
    one = profile(device_id, "sparkplug", LeaseKind.TIME_TO_LIVE, **fields)
    metrics = {role: meaning for role, meaning in METRICS.items() if role not in without}
    return SparkplugDevice(
        device_id=device_id, organisation=ORG, profile=one, group=GROUP,
        edge_node=f"node-{device_id}", sparkplug_device=behind, metrics=metrics,
    )  # fmt: skip


def host(
    port: int, *devices: SparkplugDevice, answer_s: float = 2.0, rebirth_every_s: float = 0.3,
    version: int = 5, **login: str,
) -> SparkplugAdapter:  # fmt: skip
    return SparkplugAdapter(
        MqttBroker(host=HOST, port=port, client_id="gateway", version=version, **login), devices,
        host_id=HOST_ID,
        clock=WallClock(), time_map=IdentityTime(), ack_timeout_s=answer_s,
        rebirth_every_s=rebirth_every_s,
    )  # fmt: skip


def node(device: SparkplugDevice, battery: SparkplugBattery, **fields: Any) -> SparkplugNode:
    return SparkplugNode(device.group, device.edge_node, device.sparkplug_device, battery, **fields)


class SparkplugBench(Bench):
    """A battery behind an edge node, and an edge node that was never born."""

    command = "set"

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.adapter = host(port, binding(HERE), binding(AWAY))
        self._battery = SparkplugBattery(log=self.log.append)
        self._node = node(binding(HERE), self._battery)

    def commanded_kw(self) -> float | None:
        return self._battery.commanded_kw()

    def measure(self, power_kw: float) -> None:
        self._node.measure(power_kw)

    def players(self) -> list[Coroutine[Any, Any, None]]:
        return [self._node.run(HOST, self._port)]


class SparkplugRig:
    """An adapter, its sink and one edge node on one broker."""

    def __init__(
        self, port: int, device: SparkplugDevice, *, answer_s: float, version: int, **fields: Any
    ) -> None:
        self.sink = ListSink()
        self.log: list[Any] = []
        self.battery = SparkplugBattery(log=self.log.append)
        self.node = node(device, self.battery, **fields)
        self.adapter = host(port, device, answer_s=answer_s, version=version)
        self.device_id = device.device_id

    async def present(self) -> None:
        await eventually(lambda: self.adapter.connected(self.device_id), what="the device")

    async def absent(self) -> None:
        await eventually(lambda: not self.adapter.connected(self.device_id), what="its absence")


@asynccontextmanager
async def sparkplug_rig(
    port: int, device: SparkplugDevice | None = None, *, answer_s: float = 2.0,
    gateway_port: int = 0, version: int = 5, **fields: Any,
) -> AsyncIterator[SparkplugRig]:  # fmt: skip
    """Everything running and present; the gateway may go through a relay's port."""
    rig = SparkplugRig(
        gateway_port or port, device or binding(HERE), answer_s=answer_s, version=version, **fields
    )
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        ready = asyncio.Event()
        running = [tasks.create_task(rig.adapter.run(rig.sink, ready=ready.set))]
        await asyncio.wait_for(ready.wait(), 10)
        running.append(tasks.create_task(rig.node.run(HOST, port)))
        await rig.present()
        yield rig
        for task in running:
            task.cancel()
