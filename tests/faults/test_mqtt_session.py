"""Sessions: versions, credentials, TLS, topic rights, and a broker that is not there yet."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.broker import main, serve_broker
from marketplace_core.dispatch.setpoint import Applied
from marketplace_core.errors import ConfigError
from tests.harness.clocks import eventually
from tests.harness.lab import HOST
from tests.harness.mqtt import SILENT, Mosquitto, embedded, gateway, rig, setpoint
from tests.harness.sinks import ListSink

pytestmark = pytest.mark.process


async def up(port: int, **session: object) -> bool:
    """Whether an adapter becomes ready within a few seconds."""
    adapter, ready = gateway(port, [SILENT], **session), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(adapter.run(ListSink(), ready=ready.set))
        try:
            async with asyncio.timeout(3):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            running.cancel()
    return True


async def test_broker_that_speaks_only_3_1_1_is_found_out(tmp_path: Path) -> None:
    with embedded(tmp_path) as port:
        assert not await up(port, version=5)
        async with rig(port, "ev-1", version=0) as lab:
            assert isinstance((await lab.issue(setpoint("ev-1")))["ev-1"], Applied)


async def test_adapter_waits_for_a_broker_that_comes_later(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path)
    adapter, ready = gateway(mosquitto.port, [SILENT]), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(adapter.run(ListSink(), ready=ready.set))
        await eventually(lambda: adapter._control._failures > 0, what="a failed try")
        with mosquitto:
            await asyncio.wait_for(ready.wait(), 20)
            running.cancel()


async def test_credentials_are_sent_and_checked(tmp_path: Path) -> None:
    password = tmp_path / "passwords"
    make = ["mosquitto_passwd", "-c", "-b", str(password), "gateway", "secret"]
    await asyncio.to_thread(subprocess.run, make, check=True)
    with Mosquitto(tmp_path, f"password_file {password}", anonymous=False) as running:
        assert not await up(running.port, username="gateway", password="wrong")
        assert await up(running.port, username="gateway", password="secret")


@pytest.mark.parametrize(("granted", "ready"), [(0x01, True), (0x00, False), (0x87, False)])
async def test_subscription_below_qos_1_is_no_session(granted: int, ready: bool) -> None:  # noqa: FBT001
    """0x87 is "not authorised"; MQTT 5, section 3.9.3."""

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await packet(reader)
        writer.write(bytes.fromhex("2003000000"))  # CONNACK: accepted, no properties
        subscribe = await packet(reader)
        filters = subscribe.count(b"flexway/")
        writer.write(bytes([0x90, 3 + filters, *subscribe[:2], 0, *[granted] * filters]))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(broker, HOST, 0) as server:
        assert await up(server.sockets[0].getsockname()[1]) is ready


async def packet(reader: asyncio.StreamReader) -> bytes:
    """The next packet without its fixed header; remaining lengths below 16,384."""
    _, length = await reader.readexactly(2)
    if length & 0x80:
        length = (length & 0x7F) + 128 * (await reader.readexactly(1))[0]
    return await reader.readexactly(length)


async def test_tls_is_verified(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    settings = (f"certfile {certificate}", f"keyfile {key}")
    with Mosquitto(tmp_path, *settings) as running:
        trusting = ssl.create_default_context(cafile=str(certificate))
        assert await up(running.port, tls=trusting)
        assert not await up(running.port, tls=ssl.create_default_context())


async def test_embedded_broker_checks_passwords(tmp_path: Path) -> None:
    hashed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _HASH, "secret"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    passwords = tmp_path / "passwords"
    passwords.write_text(f"gateway:{hashed.stdout.strip()}\n")
    with embedded(tmp_path, "--password-file", str(passwords), lab=False) as port:
        assert await up(port, version=4, username="gateway", password="secret")
        assert not await up(port, version=4, username="gateway", password="wrong")
        assert not await up(port, version=4)


_HASH = """
import sys
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
print(PasswordHash((Argon2Hasher(),)).hash(sys.argv[1]))
"""


@pytest.mark.parametrize(("host", "lab"), [(HOST, False), ("0.0.0.0", True)])
async def test_embedded_broker_is_anonymous_in_a_loopback_lab_only(host: str, lab: bool) -> None:  # noqa: FBT001
    with pytest.raises(ConfigError, match="password file"):
        await serve_broker(host, 0, lambda _port: None, lab=lab)


def test_embedded_broker_says_what_is_missing() -> None:
    result = CliRunner().invoke(main, ["--port", "0"])
    assert result.exit_code == 2
    assert "password file" in result.output


async def test_embedded_broker_serves_in_process_and_ends_cleanly() -> None:
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve_broker(HOST, 0, port.set_result, lab=True))
        assert await up(await port, version=4)
        serving.cancel()


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
