"""The broker that `deploy/` ships for a site: started as it is, with passwords or certificates."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import pytest

from adapters.mqtt import wire
from adapters.mqtt.adapter import MqttAdapter, MqttDevice
from config.loading import load_settings
from gateway.bootstrap.adapters import mqtt_broker
from marketplace_core.dispatch.setpoint import Applied
from tests.harness.access import GATEWAY, entered, password_of, run_acl, settings_file
from tests.harness.certificates import Authority
from tests.harness.clocks import IdentityTime, WallClock, eventually
from tests.harness.lab import HOST, free_port, wait_for_port
from tests.harness.mqtt import ORG, profile, setpoint
from tests.harness.sinks import ListSink

pytestmark = pytest.mark.process
DEPLOY = Path(__file__).parents[2] / "deploy/mosquitto"
DEVICE = "ev-1"
LIMITS = {
    "max_connections", "max_queued_messages", "max_queued_bytes", "max_inflight_messages",
    "max_inflight_bytes", "max_packet_size", "max_keepalive",
    "memory_limit", "persistent_client_expiration", "max_qos",
}  # fmt: skip


def options(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition(" ")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("name", ["mosquitto.conf", "site.conf"])
def test_every_limit_is_set_and_nobody_is_anonymous(name: str) -> None:
    found = options((DEPLOY / name).read_text())
    assert set(found) >= LIMITS
    assert all(value != "0" for limit in LIMITS for value in found[limit])  # 0 is no limit
    assert found["allow_anonymous"] == ["false"]
    assert len(found["listener"]) == len(found["certfile"]) == len(found["max_connections"]) == 2
    assert int(found["max_packet_size"][0]) > wire.MAX_PAYLOAD + 4 * wire.MAX_ID
    devices = options((DEPLOY / name).read_text().partition("listener 8883")[2])
    assert devices["use_username_as_clientid"] == ["true"]


@dataclass
class Site:
    folder: Path
    authority: Authority
    gateway_port: int
    device_port: int
    certificates: bool

    def pair(self, name: str) -> tuple[Path, Path]:
        return self.authority.issue(name)

    def adapter(self) -> MqttAdapter:
        devices = [MqttDevice(device_id=DEVICE, organisation=ORG, profile=profile(DEVICE))]
        broker = mqtt_broker(load_settings(self.folder / "flexway.toml"))
        return MqttAdapter(
            broker, devices, clock=WallClock(), time_map=IdentityTime(), ack_timeout_s=5.0
        )

    def device(
        self, will: aiomqtt.Will | None = None,
        version: aiomqtt.ProtocolVersion = aiomqtt.ProtocolVersion.V5,
    ) -> aiomqtt.Client:  # fmt: skip
        context = ssl.create_default_context(cafile=self.authority.certificate)
        login = {}
        if self.certificates:
            context.load_cert_chain(*self.pair(DEVICE))
        else:
            login = {
                "username": DEVICE, "password": password_of(self.folder / "flexway", DEVICE),
            }  # fmt: skip
        five = version is aiomqtt.ProtocolVersion.V5
        return aiomqtt.Client(
            HOST, self.device_port, identifier=DEVICE, tls_context=context, timeout=5, will=will,
            protocol=version, **({"clean_start": True} if five else {"clean_session": True}),
            **login,
        )  # fmt: skip


@contextmanager
def shipped(folder: Path, *, certificates: bool) -> Iterator[Site]:
    authority = Authority(folder / "tls")
    site = Site(folder, authority, free_port(), free_port(), certificates)
    site.pair("broker")
    shown = site.pair(GATEWAY)
    mqtt = {
        "username": "" if certificates else GATEWAY, "host": HOST, "port": site.gateway_port,
        "tls": True, "ca_certificate": str(authority.certificate),
        **({"client_certificate": str(shown[0]), "client_key": str(shown[1])}
           if certificates else {"password_file": str(folder / "mqtt-password")}),
    }  # fmt: skip
    (folder / "mqtt-password").write_text("the-gateways-own")
    settings = settings_file(folder, {DEVICE: ORG}, mqtt)
    done = run_acl(settings, folder / "flexway", *(("--certificates",) if certificates else ()))
    assert done.exit_code == 0, done.output
    process = start(site)
    try:
        for port in (site.gateway_port, site.device_port):
            wait_for_port(port)
        yield site
    finally:
        process.terminate()
        process.wait(10)


def start(site: Site) -> subprocess.Popen[bytes]:
    """As shipped, with its paths and ports moved."""
    text = (DEPLOY / "site.conf").read_text()
    if site.certificates:
        text = text.replace("#certificates ", "")
        text = re.sub(r"password_file .*\n", "", text)
    (site.folder / "lib").mkdir()
    for was, now in {
        "/etc/mosquitto/flexway": str(site.folder / "flexway"),
        "/etc/mosquitto/tls": str(site.folder / "tls"),
        "/var/lib/mosquitto/": f"{site.folder / 'lib'}/",
        "listener 8884 127.0.0.1": f"listener {site.gateway_port} 127.0.0.1",
        "listener 8883": f"listener {site.device_port} 127.0.0.1",
    }.items():
        assert was in text
        text = text.replace(was, now)
    # Started by root it would give up root before it reads what this test made.
    path = site.folder / "mosquitto.conf"
    path.write_text(text + ("user root\n" if os.getuid() == 0 else ""))
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with (site.folder / "mosquitto.log").open("wb") as log:
        return subprocess.Popen([binary, "-c", str(path)], stdout=log, stderr=log)


@pytest.mark.parametrize(
    ("certificates", "version"),
    [
        (False, aiomqtt.ProtocolVersion.V5),
        (True, aiomqtt.ProtocolVersion.V5),
        (False, aiomqtt.ProtocolVersion.V311),
    ],
)
async def test_a_device_is_driven_through_it(
    tmp_path: Path,
    certificates: bool,  # noqa: FBT001 - a parameter of the test
    version: aiomqtt.ProtocolVersion,
) -> None:
    with shipped(tmp_path, certificates=certificates) as site:
        adapter, sink, ready = site.adapter(), ListSink(), asyncio.Event()
        told = list[wire.Stored]()
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(adapter.run(sink, ready=ready.set)),
                tasks.create_task(obey(site, version, told)),
            ]
            await asyncio.wait_for(ready.wait(), 10)
            await eventually(lambda: adapter.connected(DEVICE), what="presence")
            outcomes = [o async for batch in adapter.issue([setpoint(DEVICE)]) for o in batch]
            assert [type(one) for one in outcomes] == [Applied]
            await eventually(lambda: told == [wire.Stored(boot=1, through=0)], what="`stored`")
            assert [(one.boot, one.sequence) for one in sink.readings] == [(1, 0)]
            for task in running:
                task.cancel()
    log = (tmp_path / "mosquitto.log").read_text()
    said = re.findall(r"\d+: (?:Error|Warning|Note): .*", log)
    assert [line for line in said if "run as root" not in line] == []


async def obey(site: Site, version: aiomqtt.ProtocolVersion, told: list[wire.Stored]) -> None:
    """A device that reports once and says yes to everything, in JSON."""
    command_topic, answers = (wire.topic(ORG, DEVICE, kind) for kind in ("command", "ack"))
    async with site.device(version=version) as client:
        await client.subscribe(command_topic, qos=1)
        await client.subscribe(wire.topic(ORG, DEVICE, "stored"), qos=1)
        online = b'{"v":1,"online":true}'
        await client.publish(wire.topic(ORG, DEVICE, "status"), online, qos=1, retain=True)
        row = b'{"v":1,"boot":1,"readings":[[0,1500000000000000,60.0,-2000.0]],"oldest":0}'
        await client.publish(wire.topic(ORG, DEVICE, "telemetry"), row, qos=1)
        async for message in client.messages:
            if message.topic.value != command_topic:
                told.append(wire.decode_stored(bytes(message.payload)))
                continue
            command = wire.decode_command(bytes(message.payload))
            if version is aiomqtt.ProtocolVersion.V5:
                assert message.properties is not None
                assert message.properties.ResponseTopic == answers
            answer = f'{{"v":1,"id":"{command.id}","status":"applied","power_w":{command.power_w}}}'
            await client.publish(answers, answer.encode(), qos=1)


async def test_a_message_beyond_the_profile_is_not_taken(tmp_path: Path) -> None:
    with shipped(tmp_path, certificates=False) as site:
        async with site.device() as client:
            topic = wire.topic(ORG, DEVICE, "telemetry")
            await client.publish(topic, bytes(wire.MAX_PAYLOAD), qos=1)
            with pytest.raises(aiomqtt.MqttError):
                await client.publish(topic, bytes(310_000), qos=1, timeout=2)
        assert await entered(site.device())
