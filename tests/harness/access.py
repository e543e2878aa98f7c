"""A real Mosquitto that keeps what `flexway broker acl` wrote, and foreign clients at it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiomqtt
from click.testing import CliRunner, Result

from config.writing import to_toml
from gateway.cli import flexway
from tests.harness.lab import HOST, free_port
from tests.harness.mqtt import ORG, Mosquitto

GATEWAY: Final = "flexway-gateway"
ADMIN: Final = "admin"
PLUGINS: Final = tuple(Path("/usr/lib").glob("**/mosquitto_dynamic_security.so"))
KINDS: Final = ("acl", *(("dynamic",) if PLUGINS else ()))
"""Ways in which a broker is told; dynamic security where its plugin is installed."""
PROFILE: Final = {
    "min_kw": -7.0, "max_kw": 0.0, "control": "limit", "lease": "time_to_live",
    "lease_s": 600.0, "telemetry_s": 60.0,
}  # fmt: skip


def settings_file(
    folder: Path, devices: Mapping[str, str], mqtt: Mapping[str, Any] | None = None
) -> Path:
    """Settings that bind devices (id -> organisation)."""
    bound = [
        {"device_id": name, "organisation": owner, "profile": PROFILE}
        for name, owner in devices.items()
    ]
    section = {"username": GATEWAY, "tls": False, "devices": bound, **(mqtt or {})}
    path = folder / "flexway.toml"
    path.write_text(to_toml({"lab": True, "mqtt": section}))
    return path


def run_acl(settings: Path, out: Path, *options: str) -> Result:
    """The command as a user types it."""
    given = ["broker", "acl", "--config", str(settings), "--out", str(out), *options]
    return CliRunner().invoke(flexway, given)


def password_of(out: Path, name: str) -> str:
    return (out / "handout" / f"{name}.password").read_text().strip()


@dataclass
class Guarded:
    """A running broker: one door for the gateway, one for devices."""

    folder: Path
    out: Path
    gateway_port: int
    device_port: int
    broker: Mosquitto

    def client(self, name: str, *, identifier: str = "", **options: Any) -> aiomqtt.Client:
        """A foreign client with the login of `name`."""
        if "password" not in options:
            options["password"] = password_of(self.out, name)
        return aiomqtt.Client(
            HOST, self.gateway_port if name == GATEWAY else self.device_port, username=name,
            identifier=identifier or name, timeout=5, clean_start=True,
            protocol=aiomqtt.ProtocolVersion.V5, **options,
        )  # fmt: skip


@contextmanager
def guarded(
    folder: Path, kind: str, devices: Sequence[str], *options: str, organisation: str = ORG,
    mqtt: Mapping[str, Any] | None = None,
) -> Iterator[Guarded]:  # fmt: skip
    out = folder / "access"
    settings = settings_file(folder, dict.fromkeys(devices, organisation), mqtt)
    extra = ("--dynamic-security",) if kind == "dynamic" else ()
    done = run_acl(settings, out, *extra, *options)
    assert done.exit_code == 0, done.output
    device_port = free_port()
    rules = _dynamic(folder) if kind == "dynamic" else _files(out)
    # Without per-listener settings what follows a listener concerns it, and rules concern all.
    door = (f"listener {device_port} {HOST}", "use_username_as_clientid true")
    with Mosquitto(folder, *rules, *door, anonymous=False) as broker:
        if kind == "dynamic":
            tell(broker.port, out)
        yield Guarded(folder, out, broker.port, device_port, broker)


def _files(out: Path) -> tuple[str, ...]:
    return f"acl_file {out / 'acl'}", f"password_file {out / 'passwords'}"


def _dynamic(folder: Path) -> tuple[str, ...]:
    state = folder / "dynamic-security.json"
    make = ["mosquitto_ctrl", "dynsec", "init", str(state), ADMIN, ADMIN]
    subprocess.run(make, check=True, capture_output=True)
    return f"plugin {PLUGINS[0]}", f"plugin_opt_config_file {state}"


def tell(port: int, out: Path) -> None:
    """Send the requests as the documentation says."""
    with (out / "dynamic-security.jsonl").open() as file:
        subprocess.run(
            ["mosquitto_pub", "-h", HOST, "-p", str(port), "-u", ADMIN, "-P", ADMIN, "-q", "1",
             "-t", "$CONTROL/dynamic-security/v1", "-l"],
            stdin=file, check=True, timeout=20,
        )  # fmt: skip


async def until(client: aiomqtt.Client, topic: str) -> list[tuple[str, bytes]]:
    """Every message until one on `topic`, which is left out: what came before it arrived."""
    seen: list[tuple[str, bytes]] = []
    async with asyncio.timeout(10):
        async for message in client.messages:
            if message.topic.value == topic:
                break
            seen.append((message.topic.value, bytes(message.payload)))
    return seen


async def entered(client: aiomqtt.Client) -> bool:
    """Whether a broker lets a client in."""
    try:
        async with client:
            return True
    except aiomqtt.MqttError:
        return False


@asynccontextmanager
async def lost_without_goodbye(client: aiomqtt.Client) -> AsyncIterator[aiomqtt.Client]:
    """A client whose link breaks at the end, so that its Will speaks."""
    try:
        async with client:
            yield client
            client._client.socket().shutdown(2)
    except aiomqtt.MqttError:
        return
