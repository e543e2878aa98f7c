"""Fleets of the simulator: in virtual time, or in this process against a broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgpack

from adapters.mqtt import wire
from firmware_sim.fleet.mqtt_fleet import MqttFleet
from firmware_sim.fleet.mqtt_host import MqttHost, MqttOptions
from firmware_sim.fleet.population import populate
from firmware_sim.fleet.run import stopwatch
from firmware_sim.fleet.scenario import Scenario
from firmware_sim.fleet.scenario_file import parse_scenario
from firmware_sim.fleet.stats import Stats
from firmware_sim.fleet.virtual import Playback, Said, Told

EPOCH_US = 1_500_000_000_000_000
INTERVAL_S = 10.0


def scenario(*entries: str) -> Scenario:
    """Entries as they stand in a file, each in braces."""
    listed = "".join(f"\n  - {{{entry}}}" for entry in entries)
    return parse_scenario(f"name: test\ntimeline:{listed or ' []'}\n".encode(), "test.yaml")


def virtual(
    *entries: str, count: int = 20, seed: int = 7, old_share: float = 0.0, interval_s: float = 10.0
) -> MqttFleet:
    return MqttFleet(
        populate("mqtt", count, seed=seed, old_share=old_share), scenario(*entries), seed=seed,
        epoch_us=EPOCH_US, interval_s=interval_s,
    )  # fmt: skip


def play(
    fleet: MqttFleet, until: float, *, commands: Sequence[Told] = (), stores: bool = True
) -> list[Said]:
    return list(Playback(fleet, seed=7, commands=commands, stores=stores).run(until))


def told(at: float, device: str, power_kw: float, *, lease_s: float = 600.0, **more: Any) -> Told:
    command = {
        "v": 1, "kind": "set", "id": f"spt-{device}-{at:g}", "order_id": "ord_1", "revision": 0,
        "power_w": power_kw * 1000.0, "lease_s": lease_s, "ttl_s": 5.0, **more,
    }  # fmt: skip
    return Told(at, device, command)


def readings(said: Sequence[Said], device: str) -> list[wire.WireReading]:
    """Of one device, in the order in which they came, as the gateway's codec reads them."""
    return [
        reading
        for one in said
        if one.kind == "telemetry" and one.device == device
        for reading in wire.decode_telemetry(one.payload).readings
    ]


def unpacked(said: Sequence[Said], kind: str, device: str) -> list[tuple[float, dict[str, Any]]]:
    return [
        (one.at, msgpack.unpackb(one.payload))
        for one in said
        if one.kind == kind and one.device == device
    ]


@asynccontextmanager
async def connected(
    port: int, *entries: str, count: int = 20, seed: int = 7, interval_s: float = 1.0,
    old_share: float = 0.3, wait: bool = True, **options: Any,
) -> AsyncIterator[tuple[MqttHost, MqttFleet, Stats]]:  # fmt: skip
    """A fleet on a real broker; everybody is connected at the start, and says goodbye at the end.

    The timeline counts from before the first connection.
    """
    clock, stats = stopwatch(), Stats()
    fleet = MqttFleet(
        populate("mqtt", count, seed=seed, old_share=old_share), scenario(*entries), seed=seed,
        epoch_us=round(time.time() * 1e6), interval_s=interval_s, boot=int(time.time()),
        clock=clock, resend_s=2.0,
    )  # fmt: skip
    host = MqttHost(
        fleet,
        MqttOptions(port=port, spread_s=0.3, base_s=0.5, cap_s=2.0, keepalive_s=10, **options),
        seed=seed, stats=stats, clock=clock,
    )  # fmt: skip
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(host.run(stop))
        if wait:
            await asyncio.wait_for(host.all_up.wait(), 20)
        try:
            yield host, fleet, stats
        finally:
            stop.set()
