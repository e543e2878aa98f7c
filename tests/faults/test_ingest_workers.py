"""Two ingest workers and one gateway that dispatches, on one PostgreSQL and one Mosquitto."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from config.loading import load_settings
from gateway.children import Child
from gateway.cli.serve import serve
from marketplace_core.errors import ConfigError
from marketplace_core.shards import shard_range
from tests.harness.clocks import eventually
from tests.harness.lab import HOST, Lab, free_port
from tests.harness.load import Load, bound, series, site_settings
from tests.harness.mqtt import Mosquitto
from tests.harness.servers import PASSWORD, PostgresServer, postgres

pytestmark = [pytest.mark.process, pytest.mark.slow]
DEVICES = [f"ev-{number:03d}" for number in range(30)]
LOW, HIGH, BETWEEN = "00-7f", "80-ff", "70-8f"


@dataclass
class Site:
    lab: Lab
    workers: dict[str, Child] = field(default_factory=dict)

    def start_gateway(self, *options: str) -> Child:
        child = self.workers["gateway"] = self.lab.start(arguments=("serve", *options))
        return child

    def start(self, shards: str) -> Child:
        """One worker; another of the same shards is a restart of it."""
        name = f"ingest-{shards}"
        ready = self.lab.folder / f"{name}.ready.json"
        child = self.workers[shards] = Child(
            name,
            ["gateway", "serve", "--config", str(self.lab.settings_file), "--role", "ingest",
             "--shards", shards, "--port", "0", "--ready-file", str(ready)],
            self.lab.folder,
        )  # fmt: skip
        return child

    async def kill_and_restart(self, shards: str) -> None:
        self.workers[shards].kill()
        await asyncio.to_thread(self.start(shards).wait_ready, 60)

    def url(self, shards: str) -> str:
        return str(self.workers[shards].wait_ready(60)["url"])

    def degraded(self) -> list[str]:
        answer: dict[str, Any] = httpx.get(f"{self.lab.url}/readyz").json()
        return [said for said in answer.get("degraded", []) if "shards" in said]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, server: PostgresServer) -> Iterator[Site]:
    (tmp_path / "database.password").write_text(PASSWORD + "\n")
    broker = Mosquitto(tmp_path, *site_settings(tmp_path), port=free_port(lasting=True))
    lab = Lab(tmp_path, datetime.now(UTC), speed=1.0)
    lab.sections = {
        "store": {"readings": server.database(), "readings_password_file": "database.password",
                  "root_every_s": 1.0},
        "time": {},
        "mqtt": {"port": broker.port, "tls": False, "devices": bound(DEVICES)},
    }  # fmt: skip
    lab.write_settings()
    made = Site(lab)
    with broker:
        try:
            yield made
        finally:
            for child in made.workers.values():
                child.kill()
            lab.close()


async def test_workers_share_the_load_and_one_that_is_killed_loses_nothing(site: Site) -> None:
    chance = random.Random(20260413)
    gateway = site.start_gateway("--role", "dispatch")
    for shards in (LOW, HIGH):
        site.start(shards)
    load = Load(site.lab.sections["mqtt"]["port"], DEVICES)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(d.run(HOST, load.port)) for d in load.devices]
        reporting = [tasks.create_task(load.report(device)) for device in load.devices]
        await eventually(lambda: flows(load), seconds=60, what="`stored` of every device")
        meddler = site.start(BETWEEN)
        for shards in (LOW, HIGH):
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            await site.kill_and_restart(shards)
        site.workers[HIGH].kill()
        alone = f"shards {HIGH} are taken in by nobody"
        await eventually(lambda: site.degraded() == [alone], seconds=60, what="the loss be shown")
        assert series(site.lab.url)["flexway_shards_unclaimed", ()] == 128
        load.over.set()
        await asyncio.gather(*reporting)
        site.start(HIGH)
        await eventually(lambda: load.unconfirmed == 0, seconds=90, what="`stored` for all")
        await eventually(lambda: site.degraded() == [], seconds=30, what="both to be there")
        await eventually(lambda: heard(site, load), seconds=30, what="the gateway to hear of all")
        counted = await asyncio.to_thread(series, site.lab.url)
        assert counted["flexway_devices_connected", ("mqtt",)] == len(DEVICES)
        for task in running:
            task.cancel()
    await asyncio.to_thread(check_processes, site, gateway, meddler)
    await load.check_store(load_settings(site.lab.settings_file).store)


def flows(load: Load) -> bool:
    return all(d.unconfirmed < load.reported[d.device_id] for d in load.devices)


def heard(site: Site, load: Load) -> bool:
    """Whether the gateway knows of each device the newest reading that a worker stored."""
    devices = site.lab.client("org_operator").get("/v1/devices")
    newest = {each["device_id"]: each["newest"] for each in devices}
    return all(
        newest[name] is not None and newest[name]["sequence"] == count - 1
        for name, count in load.reported.items()
    )


def check_processes(site: Site, gateway: Child, meddler: Child) -> None:
    counted = series(site.lab.url)
    assert counted["flexway_device_flags_total", ("replays",)] == 0
    assert counted["flexway_shards_unclaimed", ()] == 0
    assert counted["flexway_readings_missing", ()] == 0
    for shards in (LOW, HIGH):
        assert any(shard_range(shards).holds(name) for name in DEVICES)
        counted = series(site.url(shards))
        assert counted["flexway_adapter_up", ("mqtt",)] == 1
        assert counted["flexway_readings_missing", ()] == 0
        assert counted["flexway_readings_stored_total", ()] > 0
        assert httpx.get(f"{site.url(shards)}/readyz").json()["shards"] == shards
        assert site.workers[shards].stop() == 0
    # It waited whether the others live, then left: nobody took a shard from anybody.
    assert meddler.wait(60) == 3
    assert "taken in by ingest@" in meddler.tail(5)
    assert gateway.stop() == 0


def test_workers_are_refused_where_the_readings_are_in_a_file(tmp_path: Path) -> None:
    lab = Lab(tmp_path, datetime.now(UTC))
    lab.sections = {"time": {}, "mqtt": {"tls": False, "devices": bound(DEVICES)}}
    config = ["--config", str(lab.write_settings())]
    for options in (["--role", "ingest"], ["--role", "dispatch"]):
        with pytest.raises(ConfigError, match="SQLite file, which one process writes"):
            CliRunner().invoke(serve, [*config, *options], catch_exceptions=False)


def test_options_of_a_worker_are_checked(tmp_path: Path) -> None:
    config = ["--config", str(Lab(tmp_path, datetime.now(UTC)).write_settings())]
    for options, said in (
        (["--shards", "00-7f"], "are for --role ingest"),
        (["--role", "ingest", "--shards", "7f"], "two hex digits twice"),
        (["--role", "market"], "is not one of"),
    ):
        done = CliRunner().invoke(serve, [*config, *options])
        assert done.exit_code == 2
        assert said in " ".join(done.output.split())
