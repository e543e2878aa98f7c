"""Promise 1 under load: gateway and broker die at random, and what was told as stored is stored.

Devices that speak aiomqtt and msgpack publish without a pause; Mosquitto keeps what the site's
settings let it keep; the gateway is the real process. Both are killed with kill -9.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from config.loading import load_settings
from firmware_sim.servers.mqtt import MqttDevice
from gateway.bootstrap.backends import open_readings
from gateway.children import Child
from gateway.store.engine import from_us
from tests.harness.clocks import eventually
from tests.harness.lab import HOST, Lab, free_port
from tests.harness.mqtt import Mosquitto
from tests.harness.servers import PASSWORD, postgres

pytestmark = [pytest.mark.process, pytest.mark.slow]
SITE = Path(__file__).parents[2] / "deploy/mosquitto/site.conf"
ORG = "org_seller"
DEVICES = [f"ev-{number:03d}" for number in range(40)]
ROWS = 20
"""Readings that a device makes at once."""
EVERY_S = 0.25
SPAN_US = 25_000
KILLS = ("gateway", "broker", "gateway", "broker", "gateway")


def site_settings(folder: Path) -> list[str]:
    """Persistence and limits as the site's broker has them."""
    kept = ("persistence ", "autosave", "persistent_", "queue_", "max_queued", "max_inflight",
            "max_packet", "memory_limit", "set_tcp")  # fmt: skip
    lines = [line for line in SITE.read_text().splitlines() if line.startswith(kept)]
    assert "persistence true" in lines
    return [*lines, f"persistence_location {folder}/"]


@dataclass
class Load:
    """Devices that report without a pause until `over` is set."""

    port: int
    began_us: int = field(default_factory=lambda: int(time.time() * 1e6))
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.devices = [MqttDevice(name, ORG, boot=1, resend_s=1.5) for name in DEVICES]
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
            for _ in range(ROWS):
                number = self.reported[name]
                row = [number, self.start_us(number), SPAN_US / 1e6, -1.0 * number]
                device.report(row)
                self.reported[name] += 1
            await asyncio.sleep(EVERY_S)


@dataclass
class Site:
    lab: Lab
    broker: Mosquitto
    gateway: Child

    def restart_gateway(self) -> None:
        self.gateway.kill()
        self.gateway = self.lab.start(wait=False)

    def restart_broker(self) -> None:
        self.broker.kill()
        self.broker.start()

    async def up(self) -> None:
        found = await asyncio.to_thread(self.gateway.wait_ready, 60)
        self.lab.url = found["url"]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, object]]:
    if request.param == "sqlite":
        yield {"readings": "data/readings.db"}
        return
    with postgres() as server:
        (tmp_path / "database.password").write_text(PASSWORD + "\n")
        yield {
            "readings": server.database(), "readings_password_file": "database.password",
        }  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, store: dict[str, object]) -> Iterator[Site]:
    broker = Mosquitto(tmp_path, *site_settings(tmp_path), port=free_port(lasting=True))
    profile = {"min_kw": -7.0, "max_kw": 0.0, "telemetry_s": 1.0}
    lab = Lab(tmp_path, datetime.now(UTC), speed=1.0)
    lab.sections = {
        "store": {**store, "root_every_s": 1.0},
        "time": {},
        "mqtt": {"port": broker.port, "tls": False, "devices": [
            {"device_id": name, "organisation": ORG, "profile": profile} for name in DEVICES
        ]},
    }  # fmt: skip
    lab.write_settings()
    with broker:
        made = Site(lab, broker, lab.start())
        try:
            yield made
        finally:
            made.gateway.kill()
            lab.close()


async def test_what_was_told_as_stored_is_in_the_store_once(site: Site) -> None:
    chance, load = random.Random(20260412), Load(site.broker.port)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(d.run(HOST, load.port)) for d in load.devices]
        reporting = [tasks.create_task(load.report(device)) for device in load.devices]
        await eventually(lambda: load.reported.total() > load.unconfirmed, what="`stored`")
        await kill_at_random(site, chance)
        load.over.set()
        await asyncio.gather(*reporting)
        await site.up()
        await eventually(lambda: load.unconfirmed == 0, seconds=90, what="`stored` for all")
        for task in running:
            task.cancel()
    assert sum(device.dropped for device in load.devices) == 0
    assert load.reported.total() > 5_000
    await asyncio.to_thread(check_metrics, site)
    assert site.gateway.stop() == 0
    await check_store(site, load)


def check_metrics(site: Site) -> None:
    counted = series(site.lab.url)
    assert counted["flexway_device_flags_total", ("replays",)] == 0
    assert counted["flexway_messages_quarantined_total", ()] == 0
    assert counted["flexway_readings_missing", ()] == 0
    assert counted["flexway_sequence_given_up_total", ("mqtt",)] == 0
    operator = site.lab.client("org_operator")
    assert {one["readings_missing"] for one in operator.get("/v1/devices")} == {0}


async def kill_at_random(site: Site, chance: random.Random) -> None:
    for victim in chance.sample(KILLS, len(KILLS)):
        await site.up()  # or a gateway would only ever be killed while it starts
        await asyncio.sleep(chance.uniform(0.05, 1.0))
        await asyncio.to_thread(
            site.restart_gateway if victim == "gateway" else site.restart_broker
        )


async def check_store(site: Site, load: Load) -> None:
    readings = open_readings(load_settings(site.lab.settings_file).store)
    readings.start()
    first = from_us(load.start_us(0))
    last = from_us(load.start_us(max(load.reported.values())))
    for name, count in load.reported.items():
        found = readings.between(name, first, last)
        assert [round(-1000.0 * kw) for kw in found.power_kw] == list(range(count)), name
        assert len(set(found.start_s.tolist())) == count
    readings.stop()


def series(url: str) -> dict[tuple[str, tuple[str, ...]], float]:
    text = httpx.get(f"{url}/metrics").text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
