"""Order accepted -> setpoint on the wire, 1,000 and 10,000 MQTT devices, beside a bare publisher.

Ours: the real service behind HTTP and a real Mosquitto; the clock starts when the 202
arrives and stops when a foreign subscriber has the last of the commands. In between lie
award, plan, setpoints and the intent, each committed with fdatasync. Reference: one
client that publishes the same bytes to the same broker, to the same subscriber.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gmqtt
import httpx
import msgpack

from adapters.mqtt import wire
from tests.harness.lab import HOST, Lab, contract, mosquitto, next_period, wait_for

_COMMANDS = "flexway/v1/+/+/+/command"
_PATIENCE_S = 60.0


def device_settings(devices: int) -> list[dict[str, Any]]:
    profile = {
        "min_kw": -7.0, "max_kw": 0.0, "control": "limit", "lease": "time_to_live",
        "lease_s": 14_400.0, "notice_s": 86_400.0, "telemetry_s": 3600.0,
    }  # fmt: skip
    return [
        {"device_id": f"ev-{n:05d}", "organisation": "org_seller", "profile": profile}
        for n in range(devices)
    ]


def assets(devices: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"ast-{n:05d}", "feeder": "F-114", "technology": "ev_charger",
            "devices": [f"ev-{n:05d}"], "meter": f"ev-{n:05d}", "measurement_point": "device",
            "up_kw": 7.0,
        }
        for n in range(devices)
    ]  # fmt: skip


def run(runs: int) -> list[dict[str, Any]]:
    """Medians of `runs` orders over 1,000 devices and of as many bare publications."""
    first, last, bare = _measured(1_000, runs)
    return [
        _row("order_to_first_setpoint_1000", first, bare),
        _row("order_to_wire_1000", last, bare),
    ]


def run_10k(runs: int) -> list[dict[str, Any]]:
    """The same over 10,000 devices: the last setpoint only."""
    _, last, bare = _measured(10_000, runs)
    return [_row("dispatch_fanout_10k", last, bare)]


def _row(title: str, ours: list[float], bare: list[float]) -> dict[str, Any]:
    middle, reference = statistics.median(ours), statistics.median(bare)
    return {
        "name": title, "ours": middle, "reference": reference, "ratio": middle / reference,
        "unit": "s", "runs": len(ours),
    }  # fmt: skip


def _measured(devices: int, runs: int) -> tuple[list[float], list[float], list[float]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with mosquitto(folder) as port:
            return asyncio.run(_Fanout(folder, port, devices).measure(runs))


class _Ears:
    """A foreign subscriber to every command; answers for all devices."""

    def __init__(self, devices: int) -> None:
        self._devices = devices
        self._client = gmqtt.Client("devices", clean_session=True)
        self._client.on_message = self._take
        self.seen: dict[str, bytes] = {}
        self.first = self.last = 0.0
        self.all = asyncio.Event()

    async def connect(self, port: int) -> None:
        await self._client.connect(HOST, port)
        self._client.subscribe(_COMMANDS, qos=1)

    async def close(self) -> None:
        await self._client.disconnect()

    def begin(self) -> None:
        self.seen = {}
        self.all.clear()

    def report_all(self) -> None:
        now = time.time()
        for number in range(self._devices):
            device = f"ev-{number:05d}"
            status = wire.topic("org_seller", device, "status")
            self._client.publish(
                status, msgpack.packb({"v": 1, "online": True, "boot": 1}), qos=1, retain=True
            )
            reading = [0, int((now - 60) * 1e6), 60.0, -6600.0, None, None, True]
            payload = msgpack.packb({"v": 1, "boot": 1, "readings": [reading]})
            self._client.publish(wire.topic("org_seller", device, "telemetry"), payload, qos=1)

    def acknowledge(self) -> None:
        for topic, payload in self.seen.items():
            command = msgpack.unpackb(payload)
            ack = {"v": 1, "id": command["id"], "setpoint_id": command["id"], "status": "applied",
                   "power_w": command["power_w"]}  # fmt: skip
            self._client.publish(topic.replace("/command", "/ack"), msgpack.packb(ack), qos=1)

    def _take(self, _client: Any, topic: str, payload: bytes, _qos: int, _properties: Any) -> int:
        if not self.seen:
            self.first = time.perf_counter()
        self.seen[topic] = payload
        if len(self.seen) == self._devices:
            self.last = time.perf_counter()
            self.all.set()
        return 0


class _Fanout:
    """One service, one broker, one fleet; each order in a window of its own."""

    def __init__(self, folder: Path, port: int, devices: int) -> None:
        self._port = port
        self._devices = devices
        lab = self._lab = Lab(folder, datetime.now(UTC), speed=1.0, minutes=5)
        lab.wall_epoch = lab.market_epoch.timestamp()
        lab.sections["mqtt"] = {"port": port, "tls": False, "ack_timeout_s": 60.0,
                                "devices": device_settings(devices)}  # fmt: skip

    async def measure(self, runs: int) -> tuple[list[float], list[float], list[float]]:
        """Seconds to the first and to the last setpoint, and of the bare publisher."""
        self._lab.write_settings()
        child = await asyncio.to_thread(self._lab.start)
        ears = _Ears(self._devices)
        try:
            # Before the gateway's session exists the broker keeps nothing for it.
            await asyncio.to_thread(_await_ready, self._lab.url)
            await ears.connect(self._port)
            ears.report_all()
            window_start = next_period(datetime.now(UTC) + timedelta(minutes=30), 5)
            first, last, bare = [], [], []
            for number in range(runs):
                start = window_start + timedelta(minutes=5 * number)
                one, all_of_them = await self._order(ears, start)
                await asyncio.to_thread(_all_applied, self._lab, number + 1, self._devices)
                first.append(one)
                last.append(all_of_them)
                bare.append(await self._bare(ears))
            await ears.close()
        finally:
            await asyncio.to_thread(child.stop)
            self._lab.close()
        return first, last, bare

    async def _order(self, ears: _Ears, start: datetime) -> tuple[float, float]:
        kw = 3.0 * self._devices
        span = {"start": start.isoformat(), "end": (start + timedelta(minutes=5)).isoformat()}
        need = await asyncio.to_thread(
            contract, self._lab, assets(self._devices), kw=kw, window=span
        )
        buyer = self._lab.client("org_buyer")
        order = {"need_id": need, "kw": kw, "interval": span}
        ears.begin()
        await asyncio.to_thread(buyer.submit_order, order, key=f"bench-{need}")
        accepted = time.perf_counter()
        async with asyncio.timeout(_PATIENCE_S):
            await ears.all.wait()
        ears.acknowledge()
        return max(0.0, ears.first - accepted), max(0.0, ears.last - accepted)

    async def _bare(self, ears: _Ears) -> float:
        """The fastest client we know of that is not hand-made, in a process of its own."""
        messages = msgpack.packb(list(ears.seen.items()))
        ears.begin()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.bare", "--port", str(self._port),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(_PATIENCE_S):
            printed, _ = await child.communicate(messages)
            await ears.all.wait()
        return ears.last - float(printed)


def _await_ready(url: str) -> None:
    wait_for(lambda: httpx.get(f"{url}/readyz").is_success, seconds=30, what="readiness")


def _all_applied(lab: Lab, orders: int, devices: int) -> None:
    def applied() -> bool:
        text = httpx.get(f"{lab.url}/metrics").text
        found = re.search(
            r'^flexway_setpoints_total\{outcome="applied"\} (\S+)', text, re.MULTILINE
        )
        return found is not None and float(found[1]) >= orders * devices

    wait_for(applied, seconds=_PATIENCE_S, what="every device to have answered", every_s=0.2)
