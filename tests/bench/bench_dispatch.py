"""Order accepted -> setpoint on the wire, 1,000 MQTT devices, beside a bare publisher.

Ours: the real service behind HTTP and a real Mosquitto; the clock starts when the 202
arrives and stops when a foreign subscriber has the last of the commands. In between lie
award, plan, setpoints and the intent, each committed with fdatasync. Reference: one
client that publishes the same bytes to the same broker, to the same subscriber.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiomqtt
import gmqtt
import httpx
import msgpack

from adapters.mqtt import wire
from tests.harness.lab import HOST, Lab, contract, mosquitto, next_period, wait_for

DEVICES = 1_000
_COMMANDS = "flexway/v1/+/+/+/command"


def device_settings() -> list[dict[str, Any]]:
    profile = {
        "min_kw": -7.0, "max_kw": 0.0, "control": "limit", "lease": "time_to_live",
        "lease_s": 14_400.0, "notice_s": 86_400.0, "telemetry_s": 3600.0,
    }  # fmt: skip
    return [
        {"device_id": f"ev-{n:05d}", "organisation": "org_seller", "profile": profile}
        for n in range(DEVICES)
    ]


def assets() -> list[dict[str, Any]]:
    return [
        {
            "id": f"ast-{n:05d}", "feeder": "F-114", "technology": "ev_charger",
            "devices": [f"ev-{n:05d}"], "meter": f"ev-{n:05d}", "measurement_point": "device",
            "up_kw": 7.0,
        }
        for n in range(DEVICES)
    ]  # fmt: skip


def run(runs: int) -> list[dict[str, Any]]:
    """Medians of `runs` orders and of as many bare publications."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with mosquitto(folder) as port:
            first, last, bare = asyncio.run(_measure(folder, port, runs))
    rows = []
    for title, ours in (("order_to_first_setpoint_1000", first), ("order_to_wire_1000", last)):
        reference = statistics.median(bare)
        middle = statistics.median(ours)
        rows.append({
            "name": title, "ours": middle, "reference": reference, "ratio": middle / reference,
            "unit": "s", "runs": runs,
        })  # fmt: skip
    return rows


async def _measure(
    folder: Path, port: int, runs: int
) -> tuple[list[float], list[float], list[float]]:
    lab = Lab(folder, datetime.now(UTC), speed=1.0, minutes=5)
    lab.wall_epoch = lab.market_epoch.timestamp()
    lab.sections["mqtt"] = {"port": port, "tls": False, "devices": device_settings(),
                            "ack_timeout_s": 30.0}  # fmt: skip
    lab.write_settings()
    child = await asyncio.to_thread(lab.start)
    try:
        # Before the gateway's session exists the broker keeps nothing for it.
        await asyncio.to_thread(_await_ready, lab.url)
        async with aiomqtt.Client(HOST, port, max_queued_outgoing_messages=0) as devices:
            await devices.subscribe(_COMMANDS, qos=1)
            await _report_all(devices)
            window_start = next_period(datetime.now(UTC) + timedelta(minutes=30), 5)
            first, last = [], []
            payloads: dict[str, bytes] = {}
            for number in range(runs):
                start = window_start + timedelta(minutes=5 * number)
                one, all_of_them, payloads = await _order(lab, devices, start)
                first.append(one)
                last.append(all_of_them)
            bare = [await _bare(port, devices, payloads) for _ in range(runs)]
    finally:
        await asyncio.to_thread(child.stop)
        lab.close()
    return first, last, bare


def _await_ready(url: str) -> None:
    wait_for(lambda: httpx.get(f"{url}/readyz").is_success, seconds=20, what="readiness")


async def _report_all(devices: aiomqtt.Client) -> None:
    now = time.time()
    for number in range(DEVICES):
        device = f"ev-{number:05d}"
        topic = wire.topic("org_seller", device, "telemetry")
        status = wire.topic("org_seller", device, "status")
        await devices.publish(status, msgpack.packb({"v": 1, "online": True, "boot": 1}), qos=1,
                              retain=True)  # fmt: skip
        reading = [0, int((now - 60) * 1e6), 60.0, -6600.0, None, None, True]
        payload = {"v": 1, "boot": 1, "readings": [reading]}
        await devices.publish(topic, msgpack.packb(payload), qos=1)


async def _order(
    lab: Lab, devices: aiomqtt.Client, start: datetime
) -> tuple[float, float, dict[str, bytes]]:
    span = {"start": start.isoformat(), "end": (start + timedelta(minutes=5)).isoformat()}
    need = await asyncio.to_thread(contract, lab, assets(), kw=3_000.0, window=span)
    buyer = lab.client("org_buyer")
    order = {"need_id": need, "kw": 3_000.0, "interval": span}
    seen: dict[str, bytes] = {}
    times: list[float] = []

    async def collect() -> None:
        async for message in devices.messages:
            seen[str(message.topic)] = bytes(message.payload)
            times.append(time.perf_counter())
            if len(seen) == DEVICES:
                return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(collect())
        await asyncio.to_thread(buyer.submit_order, order, key=f"bench-{need}")
        accepted = time.perf_counter()
    await _acknowledge(devices, seen)
    return max(0.0, times[0] - accepted), max(0.0, times[-1] - accepted), seen


async def _acknowledge(devices: aiomqtt.Client, commands: dict[str, bytes]) -> None:
    for topic, payload in commands.items():
        command = msgpack.unpackb(payload)
        ack = {"v": 1, "id": command["id"], "setpoint_id": command["id"], "status": "applied",
               "power_w": command["power_w"]}  # fmt: skip
        await devices.publish(topic.replace("/command", "/ack"), msgpack.packb(ack), qos=1)


async def _bare(port: int, devices: aiomqtt.Client, payloads: dict[str, bytes]) -> float:
    """The fastest client we know of that is not hand-made, doing nothing else."""
    publisher = gmqtt.Client("bare")
    await publisher.connect(HOST, port)
    began = time.perf_counter()
    for topic, payload in payloads.items():
        publisher.publish(topic, payload, qos=1)
    missing = set(payloads)
    async for message in devices.messages:
        missing.discard(str(message.topic))
        if not missing:
            break
    elapsed = time.perf_counter() - began
    await publisher.disconnect()
    return elapsed
