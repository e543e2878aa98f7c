"""Client certificates at a real Mosquitto: the CN is the login, and nothing else gets in."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from click.testing import CliRunner

from adapters.mqtt.adapter import MqttAdapter, MqttDevice
from adapters.mqtt.wire import Kind, topic
from config.loading import load_settings
from gateway.bootstrap.adapters import mqtt_broker
from gateway.cli import flexway
from marketplace_core.errors import ConfigError
from tests.harness.access import GATEWAY, entered, run_acl, settings_file, until
from tests.harness.certificates import Authority, make_certificate
from tests.harness.clocks import IdentityTime, WallClock
from tests.harness.lab import HOST, free_port
from tests.harness.mqtt import ORG, Mosquitto, profile
from tests.harness.sinks import ListSink

pytestmark = pytest.mark.process
DEVICES = ("ev-1", "ev-2")
Pair = tuple[Path, Path]


@dataclass
class Site:
    """A broker that asks for certificates: one door for the gateway, one for devices."""

    folder: Path
    authority: Authority
    port: int
    device_port: int

    def context(self, shown: Pair | None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(self.authority.certificate))
        if shown is not None:
            made.load_cert_chain(*shown)
        return made

    def client(self, shown: Pair | None, **options: Any) -> aiomqtt.Client:
        return aiomqtt.Client(
            HOST, self.device_port, tls_context=self.context(shown), timeout=3,
            protocol=aiomqtt.ProtocolVersion.V5, **options,
        )  # fmt: skip

    def settings(self, shown: Pair | None) -> Path:
        keys = {} if shown is None else {
            "client_certificate": str(shown[0]), "client_key": str(shown[1]),
        }  # fmt: skip
        mqtt = {
            "username": "", "host": HOST, "port": self.port, "tls": True,
            "ca_certificate": str(self.authority.certificate), **keys,
        }  # fmt: skip
        return settings_file(self.folder, dict.fromkeys(DEVICES, ORG), mqtt)

    def adapter(self, shown: Pair | None) -> MqttAdapter:
        broker = mqtt_broker(load_settings(self.settings(shown)))
        devices = [MqttDevice(device_id=n, organisation=ORG, profile=profile(n)) for n in DEVICES]
        return MqttAdapter(
            broker, devices, clock=WallClock(), time_map=IdentityTime(), ack_timeout_s=5.0
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    authority = Authority(tmp_path / "ca")
    server, key = authority.issue("broker")
    ports = free_port(), free_port()
    made = Site(tmp_path, authority, *ports)
    settings = made.settings(authority.issue(GATEWAY))
    done = run_acl(settings, tmp_path / "access", "--certificates")
    assert done.exit_code == 0, done.output
    door = (
        f"cafile {authority.certificate}", f"certfile {server}", f"keyfile {key}",
        "require_certificate true", "use_identity_as_username true",
    )  # fmt: skip
    lines = [f"acl_file {tmp_path / 'access' / 'acl'}"]
    for port, more in zip(ports, ((), ("use_username_as_clientid true",)), strict=True):
        lines += [f"listener {port} {HOST}", *door, *more]
    with Mosquitto(tmp_path, *lines, anonymous=False):
        yield made


def of(device: str, kind: Kind) -> str:
    return topic(ORG, device, kind)


def unwanted(site: Site, which: str, name: str) -> Pair | None:
    """A certificate that must not open the door, for a name that would."""
    if which == "none":
        return None
    if which == "self-signed":
        return make_certificate(site.folder, name)
    if which == "another authority's":
        # By the same name: it is the key that counts.
        return Authority(site.folder / "other").issue(name)
    begins = datetime.now(UTC) - timedelta(days=9)
    return site.authority.issue(name, begins=begins, days=8)


UNWANTED = ("none", "self-signed", "another authority's", "expired")


async def up(adapter: MqttAdapter) -> bool:
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(adapter.run(ListSink(), ready=ready.set))
        try:
            async with asyncio.timeout(1.5):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            running.cancel()
    return True


async def test_the_gateway_enters_with_its_certificate(site: Site) -> None:
    assert await up(site.adapter(site.authority.issue(GATEWAY)))


@pytest.mark.parametrize("which", UNWANTED)
async def test_the_gateway_does_not_enter_with_another(site: Site, which: str) -> None:
    adapter = site.adapter(unwanted(site, which, GATEWAY))
    assert not await up(adapter)
    assert re.search("certificate|no TLS", adapter.link_fault)


@pytest.mark.parametrize("which", UNWANTED)
async def test_no_device_enters_with_another(site: Site, which: str) -> None:
    assert await entered(site.client(site.authority.issue("ev-1")))
    assert not await entered(site.client(unwanted(site, which, "ev-1")))


async def test_a_device_is_who_its_certificate_says(site: Site) -> None:
    """The user name and the client id that it gives itself count for nothing."""
    gateway, one, two = (site.authority.issue(name) for name in (GATEWAY, *DEVICES))
    far = aiomqtt.Client(HOST, site.port, tls_context=site.context(gateway), timeout=5)
    async with far, site.client(two) as victim:
        await far.subscribe("flexway/v1/+/+/+/telemetry", qos=1)
        await victim.subscribe(of("ev-2", "command"), qos=1)
        lie = {"username": "ev-2", "password": "x", "identifier": "ev-2", "clean_start": True}
        async with site.client(one, **lie) as thief:
            await thief.subscribe(of("ev-2", "command"), qos=1)
            await thief.subscribe(of("ev-1", "command"), qos=1)
            await thief.publish(of("ev-2", "telemetry"), b"bait", qos=1)
            await thief.publish(of("ev-1", "telemetry"), b"mine", qos=1)
            assert await until(far, of("ev-1", "telemetry")) == []
            await far.publish(of("ev-2", "command"), b"for two", qos=1)
            await far.publish(of("ev-1", "command"), b"for one", qos=1)
            assert await until(thief, of("ev-1", "command")) == []
        assert await until(victim, of("ev-2", "command")) == []  # and is still there


def checked(path: Path, *options: str) -> dict[str, Any]:
    done = CliRunner().invoke(flexway, ["check", "--config", str(path), "--json", *options])
    found: dict[str, Any] = json.loads(done.output)
    return found


async def test_check_enters_as_the_gateway_would(site: Site) -> None:
    for shown, ok in ((site.authority.issue(GATEWAY), True), (None, False)):
        found = await asyncio.to_thread(checked, site.settings(shown), "--probe")
        (probe,) = (one for one in found["probes"] if one["name"].startswith("mqtt"))
        assert probe["ok"] is ok, probe


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    site = Site(tmp_path, authority, 1883, 1884)
    good, another = authority.issue("gateway"), authority.issue("another")
    (tmp_path / "text.pem").write_text("no certificate")
    cases: list[tuple[Pair, str, str]] = [
        ((tmp_path / "none.pem", good[1]), "mqtt.client_certificate", "does not exist"),
        ((good[0], tmp_path / "none.key"), "mqtt.client_key", "does not exist"),
        ((tmp_path, good[1]), "mqtt.client_certificate", "cannot be read"),
        ((tmp_path / "text.pem", good[1]), "mqtt.client_certificate", "holds no certificate"),
        ((good[0], another[1]), "mqtt.client_key", "is not the key of"),
        (unwanted(site, "expired", "old") or good, "mqtt.client_certificate", "expired on"),
    ]
    for shown, key, words in cases:
        found = [one for one in checked(site.settings(shown))["findings"] if one["key"] == key]
        assert [words in one["message"] for one in found] == [True], (key, found)
        assert found[0]["line"]
        assert found[0]["remedy"]
    found = checked(site.settings(good))["findings"]
    assert [one for one in found if one["key"].startswith("mqtt")] == []


def test_a_certificate_that_cannot_be_loaded_is_a_fault_of_the_configuration(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path / "ca")
    site = Site(tmp_path, authority, 1883, 1884)
    one, other = authority.issue("one"), authority.issue("other")
    with pytest.raises(ConfigError, match="client_key cannot be used"):
        mqtt_broker(load_settings(site.settings((one[0], other[1]))))
