"""Devices that report over MQTT without a pause, and what a store has to hold of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from config.settings import StoreSettings
from firmware_sim.servers.mqtt import MqttDevice
from gateway.bootstrap.backends import open_readings
from gateway.store.engine import from_us

SITE = Path(__file__).parents[2] / "deploy/mosquitto/site.conf"
ORG = "org_seller"
ROWS = 20
"""Readings that a device makes at once."""
EVERY_S = 0.25
SPAN_US = 12_500
MOST_KEPT = 400
"""Readings of one device above which it makes no more until some are confirmed: while nobody
confirms, sending all of them again and again would starve what is to come back."""


def site_settings(folder: Path) -> list[str]:
    """Persistence and limits as the site's broker has them."""
    kept = ("persistence ", "autosave", "persistent_", "queue_", "max_queued", "max_inflight",
            "max_packet", "memory_limit", "set_tcp")  # fmt: skip
    lines = [line for line in SITE.read_text().splitlines() if line.startswith(kept)]
    assert "persistence true" in lines
    return [*lines, f"persistence_location {folder}/"]


def bound(names: Sequence[str]) -> list[dict[str, object]]:
    """Entries of `[[mqtt.devices]]`."""
    profile = {"min_kw": -7.0, "max_kw": 0.0, "telemetry_s": 1.0}
    return [{"device_id": name, "organisation": ORG, "profile": profile} for name in names]


@dataclass
class Load:
    """Devices that report without a pause until `over` is set."""

    port: int
    names: Sequence[str]
    began_us: int = field(default_factory=lambda: int(time.time() * 1e6))
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.devices = [MqttDevice(name, ORG, boot=1, resend_s=3.0) for name in self.names]
        self.reported = Counter[str]()

    @property
    def unconfirmed(self) -> int:
        return sum(device.unconfirmed for device in self.devices)

    def start_us(self, sequence: int) -> int:
        return self.began_us + sequence * SPAN_US

    async def report(self, device: MqttDevice) -> None:
        """Each reading's power is its sequence number: it is known by what it says."""
        name = device.device_id
        while not self.over.is_set():
            for _ in range(ROWS if device.unconfirmed < MOST_KEPT else 0):
                number = self.reported[name]
                row = [number, self.start_us(number), SPAN_US / 1e6, -1.0 * number]
                device.report(row)
                self.reported[name] += 1
            await asyncio.sleep(EVERY_S)

    async def check_store(self, settings: StoreSettings) -> None:
        """Every reading that was made is in the store, once, as it was made."""
        assert sum(device.dropped for device in self.devices) == 0
        readings = open_readings(settings)
        readings.start()
        first = from_us(self.start_us(0))
        last = from_us(self.start_us(max(self.reported.values())))
        for name, count in self.reported.items():
            found = readings.between(name, first, last)
            assert [round(-1000.0 * kw) for kw in found.power_kw] == list(range(count)), name
            assert len(set(found.start_s.tolist())) == count
        readings.stop()


def series(url: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """What a scrape finds, by name and values of the labels."""
    text = httpx.get(f"{url}/metrics").text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
