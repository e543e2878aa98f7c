"""Promise 1 under load: gateway and broker die at random, and what was told as stored is stored.

Devices that speak aiomqtt and msgpack publish without a pause; Mosquitto keeps what the site's
settings let it keep; the gateway is the real process. Both are killed with kill -9.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.loading import load_settings
from gateway.children import Child
from tests.harness.clocks import eventually
from tests.harness.lab import HOST, Lab, free_port
from tests.harness.load import Load, bound, series, site_settings
from tests.harness.mqtt import Mosquitto
from tests.harness.servers import PASSWORD, postgres

pytestmark = [pytest.mark.process, pytest.mark.slow]
DEVICES = [f"ev-{number:03d}" for number in range(40)]
KILLS = ("gateway", "broker", "gateway", "broker", "gateway")


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
    lab = Lab(tmp_path, datetime.now(UTC), speed=1.0)
    lab.sections = {
        "store": {**store, "root_every_s": 1.0},
        "time": {},
        "mqtt": {"port": broker.port, "tls": False, "devices": bound(DEVICES)},
    }
    lab.write_settings()
    with broker:
        made = Site(lab, broker, lab.start())
        try:
            yield made
        finally:
            made.gateway.kill()
            lab.close()


async def test_what_was_told_as_stored_is_in_the_store_once(site: Site) -> None:
    chance, load = random.Random(20260412), Load(site.broker.port, DEVICES)
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
    assert load.reported.total() > 3_000
    await asyncio.to_thread(check_metrics, site)
    assert site.gateway.stop() == 0
    await load.check_store(load_settings(site.lab.settings_file).store)


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
