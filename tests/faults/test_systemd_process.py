"""The real service under a stand-in for systemd: its socket and its watchdog."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from gateway.children import Child
from tests.harness.lab import Lab

pytestmark = pytest.mark.process
WATCHDOG_S = 0.4
PATIENCE_S = 30.0


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that a service manager would listen on; children inherit its address."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
        yield receiver


def wait_message(receiver: socket.socket, start: bytes) -> bytes:
    """Read on until a message starts so; TimeoutError when none does."""
    while not (message := receiver.recv(999)).startswith(start):
        pass
    return message


def drain(receiver: socket.socket, most: int = 10) -> None:
    """Read some messages; TimeoutError when they end before that."""
    for _ in range(most):
        receiver.recv(999)


def start(folder: Path, module: str, *arguments: str) -> Child:
    lab = Lab(folder, datetime(2017, 7, 20, 22, 0, tzinfo=UTC), speed=1.0)
    settings = lab.write_settings()
    ready = folder / "gateway.ready.json"
    command = [module, *arguments, "--config", str(settings), "--ready-file", str(ready)]
    return Child("gateway", command, folder)


def test_ready_is_said_when_requests_are_answered(tmp_path: Path, systemd: socket.socket) -> None:
    gateway = start(tmp_path, "gateway", "serve")
    try:
        message = wait_message(systemd, b"READY=1").decode()
        url = message.partition("STATUS=serving ")[2]
        assert httpx.get(f"{url}/readyz").status_code == 200
        wait_message(systemd, b"WATCHDOG=1")
    finally:
        assert gateway.stop() == 0
    wait_message(systemd, b"STOPPING=1")


def test_a_hung_event_loop_is_not_covered_up(tmp_path: Path, systemd: socket.socket) -> None:
    gateway = start(tmp_path, "tests.harness.hanger")
    try:
        wait_message(systemd, b"READY=1")
        wait_message(systemd, b"WATCHDOG=1")
        os.kill(gateway.pid, signal.SIGUSR1)
        systemd.settimeout(3 * WATCHDOG_S)
        with pytest.raises(TimeoutError):
            drain(systemd)  # what was sent before the signal may still come, then nothing more
        assert gateway.running
    finally:
        gateway.kill()


def test_ready_is_never_said_when_the_start_fails(tmp_path: Path, systemd: socket.socket) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        lab = Lab(tmp_path, datetime(2017, 7, 20, 22, 0, tzinfo=UTC), speed=1.0)
        settings = lab.write_settings()
        text = settings.read_text().replace("port = 0", f"port = {taken.getsockname()[1]}")
        settings.write_text(text)
        gateway = Child("gateway", ["gateway", "serve", "--config", str(settings)], tmp_path)
        assert gateway.wait(PATIENCE_S) == 3
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(99)
