"""Telemetry ingest, QoS 1, acknowledged after the commit, beside `mosquitto_sub`.

Ours: the adapter and the readings store (`synchronous=FULL`) in one process; the rows in
the store are counted afterwards. Reference: `mosquitto_sub -q 1` on the same stream from
the same broker, which decodes and stores nothing. The publisher runs in its own process.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import uvloop

from adapters.mqtt.adapter import MqttAdapter, MqttDevice
from adapters.mqtt.link import MqttBroker
from gateway.store.readings_sqlite import SqliteReadings
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.units import Kw
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading
from tests.bench.publisher import device_ids
from tests.harness.clocks import IdentityTime, WallClock, eventually
from tests.harness.lab import HOST, mosquitto, wait_for

MESSAGES = 60_000
DEVICES = 1_000
_TOPIC = "flexway/v1/+/+/+/telemetry"


def run(runs: int) -> list[dict[str, Any]]:
    """Median messages per second of `runs` streams each, in turn."""
    ours, reference = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            mosquitto(folder) as port,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            for number in range(runs):
                reference.append(_reference(port, 2 * number + 1))
                ours.append(runner.run(_ours(folder, port, 2 * number + 2)))
    middle, beside = statistics.median(ours), statistics.median(reference)
    return [
        {
            "name": "mqtt_ingest_qos1", "ours": middle, "reference": beside,
            "ratio": middle / beside, "unit": "messages/s", "runs": runs,
        }
    ]  # fmt: skip


def _publisher(port: int, boot: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.publisher", "--port", str(port), "--messages",
         str(MESSAGES), "--devices", str(DEVICES), "--boot", str(boot)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


class Sink:
    """The real store, with a count."""

    def __init__(self, store: SqliteReadings) -> None:
        self._store = store
        self.stored = 0

    async def store(self, readings: Sequence[Reading]) -> None:
        self.stored += len(await self._store.store(readings))

    def quarantine(self, *, source: str, reason: str, evidence: bytes, device_id: str = "") -> None:
        raise AssertionError(f"{source}: {reason} ({evidence!r})")

    def noticed(self, *, device_id: str, kind: FlagKind, since: datetime, evidence: str) -> None:
        raise AssertionError(f"{device_id}: {kind} ({evidence})")


async def _ours(folder: Path, port: int, boot: int) -> float:
    readings = SqliteReadings(folder / f"readings-{boot}.db")
    readings.start()
    sink = Sink(readings)
    profile = {"protocol": "mqtt", "min_kw": Kw(-7.0), "max_kw": Kw(0.0)}
    adapter = MqttAdapter(
        MqttBroker(host=HOST, port=port, client_id=f"ours-{boot}", session_expiry_s=0),
        [
            MqttDevice(
                device_id=name, organisation="org_seller",
                profile=DeviceProfile(device_id=name, **profile),  # type: ignore[arg-type]
            )
            for name in device_ids(DEVICES)
        ],
        clock=WallClock(), time_map=IdentityTime(), ack_timeout_s=5.0,
    )  # fmt: skip
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(adapter.run(sink, ready=ready.set))
        await ready.wait()
        publisher = _publisher(port, boot)
        began = float(await asyncio.to_thread(publisher.stdout.readline))  # type: ignore[union-attr]
        await eventually(lambda: sink.stored >= MESSAGES, seconds=120, what="the whole stream")
        elapsed = time.time() - began
        running.cancel()
    await asyncio.to_thread(publisher.wait)
    publisher.stdout.close()  # type: ignore[union-attr]
    readings.stop()
    return MESSAGES / elapsed


def _reference(port: int, boot: int) -> float:
    subscriber = subprocess.Popen(
        ["mosquitto_sub", "-h", HOST, "-p", str(port), "-q", "1", "-t", _TOPIC, "-t", "probe",
         "-F", "x"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    counted = [0]

    def drain() -> None:
        while chunk := subscriber.stdout.read1(1 << 20):  # type: ignore[union-attr]
            counted[0] += chunk.count(b"\n")

    reader = threading.Thread(target=drain)
    reader.start()

    def probed() -> bool:
        subprocess.run(["mosquitto_pub", "-h", HOST, "-p", str(port), "-t", "probe", "-m", "x"],
                       check=True)  # fmt: skip
        return counted[0] > 0

    wait_for(probed, seconds=10, what="the subscription")
    probes = counted[0]
    publisher = _publisher(port, boot)
    began = float(publisher.stdout.readline())  # type: ignore[union-attr]
    wait_for(lambda: counted[0] >= MESSAGES + probes, seconds=120, what="the whole stream")
    elapsed = time.time() - began
    publisher.wait()
    publisher.stdout.close()  # type: ignore[union-attr]
    subscriber.terminate()
    subscriber.wait()
    reader.join()
    subscriber.stdout.close()  # type: ignore[union-attr]
    return MESSAGES / elapsed
