"""What `deploy/` ships, run for real: its secrets, broker, ACL and settings together.

The containers' parts that are installed here stand in for their images: the same files,
with their paths moved, and addresses given by the environment as a user would.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import aiomqtt
import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from adapters.mqtt.wire import topic
from gateway.children import Child
from tests.harness.lab import free_port, wait_for, wait_for_port

pytestmark = pytest.mark.process
DEPLOY = Path(__file__).parents[2] / "deploy"


def run_secrets(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(DEPLOY / "secrets.sh"), *arguments], capture_output=True, text=True, check=True,
        env={**os.environ, "SECRETS": str(folder)},
    )  # fmt: skip
    return done.stdout


class Doors(NamedTuple):
    """Ports of the broker."""

    gateway: int
    devices: int


@contextmanager
def shipped_broker(folder: Path, secrets: Path) -> Iterator[Doors]:
    """Mosquitto with the configuration and ACL of deploy/, on free ports."""
    doors = Doors(free_port(), free_port())
    (folder / "mosquitto").mkdir()
    text = (DEPLOY / "mosquitto/mosquitto.conf").read_text()
    for was, port in zip(("8884", "8883"), doors, strict=True):
        text = text.replace(f"listener {was}\n", f"listener {port} 127.0.0.1\n")
    text = text.replace("/run/secrets", str(secrets))
    text = text.replace("/mosquitto/config/acl", str(DEPLOY / "mosquitto/acl"))
    text = text.replace("/mosquitto/data/", f"{folder / 'mosquitto'}/")
    # Started as root it would give up root before it reads its secrets: a container is not.
    path = folder / "mosquitto.conf"
    path.write_text(text + ("user root\n" if os.getuid() == 0 else ""))
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([binary, "-c", str(path)], stdout=log, stderr=log)
    try:
        for port in doors:
            wait_for_port(port)
        yield doors
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    run_secrets(folder, "init", "gateway.example")
    return folder


def device_client(port: int, secrets: Path, name: str, password: str) -> aiomqtt.Client:
    context = ssl.create_default_context(cafile=secrets / "ca.pem")
    return aiomqtt.Client(
        "127.0.0.1", port, username=name, password=password, tls_context=context,
        identifier=name, protocol=aiomqtt.ProtocolVersion.V5, timeout=5,
    )  # fmt: skip


def telemetry(sequence: int) -> bytes:
    start_us = int((time.time() - 10) * 1e6)
    row = [sequence, start_us, 10.0, -7000.0, -7000.0, None, True]
    return json.dumps({"v": 1, "boot": 1, "readings": [row]}).encode()


async def speak(port: int, secrets: Path, password: str) -> None:
    """One reading of charger-1, then one that pretends to be another device."""
    async with device_client(port, secrets, "charger-1", password) as client:
        await client.subscribe(topic("org_fleet", "charger-1", "stored"), qos=1)
        await client.publish(
            topic("org_fleet", "charger-2", "telemetry"), telemetry(1), qos=1, timeout=5
        )
        await client.publish(
            topic("org_fleet", "charger-1", "telemetry"), telemetry(1), qos=1, timeout=5
        )
        async with asyncio.timeout(20):
            async for _ in client.messages:
                return  # `stored`: the reading is on disk


def settings_of(folder: Path, secrets: Path) -> Path:
    text = (DEPLOY / "flexway/flexway.toml").read_text()
    text = text.replace("/run/secrets", str(secrets)).replace("/var/lib/flexway", str(folder / "d"))
    path = folder / "flexway.toml"
    path.write_text(text)
    return path


def counter(text: str, name: str) -> float:
    (line,) = (row for row in text.splitlines() if row.startswith(f"{name} "))
    return float(line.split()[1])


def test_the_shipped_parts_work_together_over_tls(
    tmp_path: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = run_secrets(secrets, "device", "charger-1").splitlines()[1].split()[1]
    settings = settings_of(tmp_path, secrets)
    with shipped_broker(tmp_path, secrets) as doors:
        for name, value in {
            "STORE__DATABASE": f"sqlite:///{tmp_path}/market.db", "API__PORT": "0",
            "API__HOST": "127.0.0.1", "MQTT__HOST": "127.0.0.1", "MQTT__PORT": str(doors.gateway),
        }.items():  # fmt: skip
            monkeypatch.setenv(f"FLEXWAY_{name}", value)
        ready = tmp_path / "gateway.ready.json"
        command = ["gateway", "serve", "--config", str(settings), "--ready-file", str(ready)]
        gateway = Child("gateway", command, tmp_path)
        try:
            url = gateway.wait_ready()["url"]
            assert url.startswith("https://")
            context = ssl.create_default_context(cafile=secrets / "ca.pem")
            with closing(httpx.Client(base_url=url, verify=context)) as client:
                wait_for(lambda: client.get("/readyz").is_success, seconds=20, what="readiness")
                asyncio.run(speak(doors.devices, secrets, password))
                shown = client.get("/metrics").text
        finally:
            assert gateway.stop() == 0
    assert counter(shown, "flexway_readings_stored_total") == 1.0
    # The broker's ACL kept the other device's topic from being written.
    assert counter(shown, "flexway_messages_quarantined_total") == 0.0


def test_nobody_enters_without_a_password(tmp_path: Path, secrets: Path) -> None:
    async def enter(port: int, name: str, password: str) -> None:
        async with device_client(port, secrets, name, password):
            pass

    with shipped_broker(tmp_path, secrets) as (_, port):
        for name, password in (("flexway-gateway", "wrong"), ("charger-1", ""), ("", "")):
            with pytest.raises(aiomqtt.MqttError):
                asyncio.run(enter(port, name, password))


def test_plain_text_is_not_answered(tmp_path: Path, secrets: Path) -> None:
    async def enter(port: int) -> None:
        async with aiomqtt.Client("127.0.0.1", port, timeout=2):
            pass

    with shipped_broker(tmp_path, secrets) as (_, port), pytest.raises(aiomqtt.MqttError):
        asyncio.run(enter(port))


@contextmanager
def shipped_redis(folder: Path, secrets: Path) -> Iterator[int]:
    """Redis with the generated configuration, on a free port."""
    port = free_port()
    text = (secrets / "redis.conf").read_text().replace("tls-port 6379", f"tls-port {port}")
    text = text.replace("/run/secrets", str(secrets)).replace("dir /data", f"dir {folder}")
    path = folder / "redis.conf"
    path.write_text(text)
    binary = shutil.which("redis-server")
    assert binary is not None
    process = subprocess.Popen([binary, str(path)], stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


async def ping(port: int, scheme: str, secrets: Path, password: str | None) -> bool:
    query = f"?ssl_ca_certs={secrets / 'ca.pem'}" if scheme == "rediss" else ""
    url = f"{scheme}://127.0.0.1:{port}/0{query}"
    answered = False
    async with Redis.from_url(url, password=password, socket_timeout=5) as client:
        with contextlib.suppress(RedisError):
            answered = bool(await client.ping())
    for _ in range(3):
        await asyncio.sleep(0)  # a closed transport ends some turns of the loop later
    return answered


def test_redis_takes_tls_and_a_password_and_nothing_less(tmp_path: Path, secrets: Path) -> None:
    password = (secrets / "redis_password").read_text().strip()
    with shipped_redis(tmp_path, secrets) as port:
        assert asyncio.run(ping(port, "rediss", secrets, password))
        assert not asyncio.run(ping(port, "rediss", secrets, None))
        assert not asyncio.run(ping(port, "rediss", secrets, "wrong"))
        assert not asyncio.run(ping(port, "redis", secrets, password))


def test_a_device_has_one_login(secrets: Path) -> None:
    run_secrets(secrets, "device", "charger-9")
    with pytest.raises(subprocess.CalledProcessError):
        run_secrets(secrets, "device", "charger-9")
    lines = (secrets / "mqtt_passwords").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["flexway-gateway", "charger-9"]
    assert all(line.split(":")[1].startswith("$7$") for line in lines)  # hashed, not plain


def test_a_token_and_its_hash_belong_together(secrets: Path) -> None:
    first, second = run_secrets(secrets, "token").splitlines()
    token, digest = first.split()[1], second.split('"')[1]
    assert hashlib.sha256(token.encode()).hexdigest() == digest
