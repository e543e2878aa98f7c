"""One device of each protocol, seen alike by the contract suite of adapters.

A bench has a device that is there, one that is bound and away, and the adapter between them
and the test. `heard` counts setpoints that reached the device's end of the wire, `effects`
those that changed what it does.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from adapters.modbus.adapter import ModbusAdapter, ModbusEndpoint
from adapters.openadr.adapter import OpenAdrAdapter
from adapters.openadr.config import OpenAdrVen, OpenAdrVtn
from adapters.webhook.config import WebhookDevice
from firmware_sim.servers.modbus import BatteryUnit, ModbusServer
from firmware_sim.servers.mqtt import MqttDevice
from firmware_sim.servers.openadr import SiteEvent, SiteVen
from firmware_sim.servers.webhook import Aggregator
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint, SetpointOutcome
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading
from tests.harness.clocks import IdentityTime, WallClock, eventually
from tests.harness.fake_adapter import FakeAdapter
from tests.harness.lab import free_port
from tests.harness.mqtt import ORG, gateway
from tests.harness.sinks import ListSink
from tests.harness.webhook import SECRET, adapter, endpoint, yes

HOST = "127.0.0.1"
HERE = "dev-here"
AWAY = "dev-away"
LOW_KW, HIGH_KW = -7.0, 0.0


def profile(device_id: str, protocol: str, lease: LeaseKind, **fields: Any) -> DeviceProfile:
    return DeviceProfile(
        device_id=device_id, protocol=protocol, min_kw=Kw(LOW_KW), max_kw=Kw(HIGH_KW),
        lease=lease, lease_s=600.0, **fields,
    )  # fmt: skip


class Bench(ABC):
    """What the suite needs of a protocol."""

    adapter: Any
    """Implements the DeviceAdapter port."""
    command = ""
    """How the device's log calls a setpoint."""
    measures = True
    """Whether readings come through the adapter."""
    remembers = False
    """Whether it answers for a device that is away by what it told it itself."""

    def __init__(self) -> None:
        self.sink = ListSink()
        self.log: list[Mapping[str, Any]] = []

    def heard(self) -> int:
        return sum(entry.get("received") == self.command for entry in self.log)

    def effects(self) -> int:
        return sum(
            entry.get("effect") == "set" and entry.get("enabled", 1) == 1 for entry in self.log
        )

    @abstractmethod
    def commanded_kw(self) -> float | None:
        """What the device that is there holds now."""

    @abstractmethod
    def measure(self, power_kw: float) -> None:
        """The device measures its power, injection-positive."""

    async def prepare(self, _stack: AsyncExitStack) -> None:
        """Whatever has to be there before the adapter runs; its log begins here."""
        self.log.clear()

    def players(self) -> list[Coroutine[Any, Any, None]]:
        """What plays the device while the adapter runs."""
        return []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Device and adapter up and known to each other; the adapter's task."""
        async with AsyncExitStack() as stack:
            await self.prepare(stack)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            ready = asyncio.Event()
            running = tasks.create_task(self.adapter.run(self.sink, ready=ready.set))
            await asyncio.wait_for(ready.wait(), 10)
            players = [tasks.create_task(player) for player in self.players()]
            await eventually(lambda: self.adapter.connected(HERE), what="the device")
            yield running
            for task in [*players, running]:
                task.cancel()


class FakeBench(Bench):
    """No wire at all."""

    def __init__(self) -> None:
        super().__init__()
        profiles = [profile(name, "fake", LeaseKind.TIME_TO_LIVE) for name in (HERE, AWAY)]
        self.adapter = FakeAdapter(profiles, WallClock())
        self.adapter.devices[AWAY].reachable = False
        self._device = self.adapter.devices[HERE]

    def commanded_kw(self) -> float | None:
        return self._device.held and self._device.held.power_kw

    def heard(self) -> int:
        return self._device.commands

    def effects(self) -> int:
        return self._device.effects

    def measure(self, power_kw: float) -> None:
        now = datetime.now(UTC)
        self.adapter.measure(Reading(series=HERE, start=now, seconds=1.0, power_kw=Kw(power_kw)))


class MqttBench(Bench):
    """A charger behind a real broker."""

    command = "set"

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._sequence = 0
        self.adapter = gateway(port, (HERE, AWAY), answer_s=2.0)
        self._device = MqttDevice(HERE, ORG, boot=1, log=self.log.append)

    def commanded_kw(self) -> float | None:
        return self._device.commanded_kw()

    def measure(self, power_kw: float) -> None:
        start_us = int(datetime.now(UTC).timestamp() * 1e6)
        power_w = power_kw * 1000.0
        self._device.report([self._sequence, start_us, 1.0, power_w, power_w, None, True])
        self._sequence += 1

    def players(self) -> list[Coroutine[Any, Any, None]]:
        return [self._device.run(HOST, self._port)]


class ModbusBench(Bench):
    """A battery behind a real socket, and one whose gateway swallows every request."""

    command = "write"

    def __init__(self) -> None:
        super().__init__()
        self._battery = BatteryUnit(HERE, serial="SN1", capacity_kwh=6.4, log=self.log.append)
        self._mute = BatteryUnit(AWAY, serial="SN2", capacity_kwh=6.4)
        self._mute.faults.silent = True

    def commanded_kw(self) -> float | None:
        return self._battery.commanded_kw()

    def measure(self, power_kw: float) -> None:
        self._battery.publish(power_kw=power_kw, soc_kwh=3.0)

    async def prepare(self, stack: AsyncExitStack) -> None:
        endpoints = []
        for name, unit in ((HERE, self._battery), (AWAY, self._mute)):
            server = await stack.enter_async_context(ModbusServer({1: unit}))
            one = profile(name, "modbus", LeaseKind.REVERT_TIMER, telemetry_s=0.05)
            endpoints.append(
                ModbusEndpoint(
                    device_id=name, host=HOST, port=server.port, unit=1, role="battery",
                    profile=one,
                )
            )  # fmt: skip
        self.adapter = ModbusAdapter(
            endpoints, clock=WallClock(), time_map=IdentityTime(), timeout_s=0.3
        )


class OpenAdrBench(Bench):
    """A site that is a VEN, and a VEN that never registers."""

    command = "event"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        vens = [
            OpenAdrVen(device_id=name, ven_name=name,
                       profile=profile(name, "openadr", LeaseKind.EVENT_END))
            for name in (HERE, AWAY)
        ]  # fmt: skip
        config = OpenAdrVtn(
            host=HOST, port=0, vtn_id="vtn-test", state=folder / "openadr.json", lab=True,
            poll_s=0.2, answer_timeout_s=5.0,
        )  # fmt: skip
        self.adapter = OpenAdrAdapter(config, vens, clock=WallClock(), time_map=IdentityTime())
        self.adapter.restore([])
        self._ven: SiteVen | None = None

    def commanded_kw(self) -> float | None:
        return self._ven and self._ven.commanded_kw(datetime.now(UTC))

    def effects(self) -> int:
        return self.heard()  # it opts in to every event that it is asked about

    def measure(self, power_kw: float) -> None:
        assert self._ven is not None
        self._ven.measured(datetime.now(UTC), power_kw)

    def players(self) -> list[Coroutine[Any, Any, None]]:
        self._ven = SiteVen(
            vtn_url=f"http://{HOST}:{self.adapter.port}/OpenADR2/Simple/2.0b", ven_name=HERE,
            resource_id=HERE, decide=self._decide, poll_s=0.02, report_s=0.02,
        )  # fmt: skip
        return [self._ven.run()]

    def _decide(self, event: SiteEvent) -> bool:
        self.log.append({"received": "event", "event": event.id, "status": event.status})
        return True


class WebhookBench(Bench):
    """An aggregate behind its seller's own backend, and one whose backend is down."""

    measures = False
    remembers = True

    def __init__(self) -> None:
        super().__init__()
        self._aggregator = Aggregator(yes, secrets=[SECRET])

    def heard(self) -> int:
        return sum(not message.cancelled for message in self._aggregator.decided)

    def effects(self) -> int:
        return self.heard()  # it says yes to whatever it decides on

    def commanded_kw(self) -> float | None:
        return self._aggregator.commanded_kw(datetime.now(UTC), HERE)

    def measure(self, power_kw: float) -> None:
        raise NotImplementedError(f"{power_kw} kW would come by the API")

    async def prepare(self, stack: AsyncExitStack) -> None:
        server = await stack.enter_async_context(self._aggregator)
        endpoints = {
            HERE: endpoint(server.url, HERE, status_url=server.status_url),
            AWAY: endpoint(f"http://{HOST}:{free_port()}/hook", AWAY),
        }
        devices = [
            WebhookDevice(device_id=name, organisation=name,
                          profile=profile(name, "webhook", LeaseKind.EVENT_END))
            for name in endpoints
        ]  # fmt: skip
        self.adapter = await stack.enter_async_context(adapter(devices, endpoints))


def setpoint(number: int = 1, **changes: Any) -> Setpoint:
    now = datetime.now(UTC)
    fields = {
        "id": f"spt_{number}", "order_id": "ord_1", "revision": 0, "device_id": HERE,
        "power_kw": Kw(-2.0), "valid_from": now, "valid_until": now + timedelta(minutes=10),
        "lease_s": 600.0,
    }  # fmt: skip
    return Setpoint(**{**fields, **changes})


async def issue(bench: Bench, *setpoints: Setpoint) -> dict[str, SetpointOutcome]:
    """Outcomes by setpoint id, in the order they came; exactly one for each."""
    outcomes = [one async for batch in bench.adapter.issue(setpoints) for one in batch]
    assert sorted(one.setpoint_id for one in outcomes) == sorted(one.id for one in setpoints)
    return {one.setpoint_id: one for one in outcomes}
