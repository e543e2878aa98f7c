"""Telling systemd: over a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.observability.systemd import Systemd


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


def test_readiness_and_the_end_are_told(listener: socket.socket) -> None:
    supervisor = Systemd(listener.getsockname())
    supervisor.ready("serving https://127.0.0.1:8443")
    assert listener.recv(999) == b"READY=1\nSTATUS=serving https://127.0.0.1:8443"
    supervisor.stopping()
    assert listener.recv(999).startswith(b"STOPPING=1")


def test_an_abstract_socket_is_reached() -> None:
    name = f"flexway-test-{os.getpid()}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(5)
        Systemd(f"@{name}").ready("x")
        assert receiver.recv(99).startswith(b"READY=1")


def test_without_systemd_nothing_is_sent() -> None:
    Systemd().ready("x")
    Systemd().stopping()


def test_a_socket_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    Systemd(str(tmp_path / "nobody")).ready("x")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdog_is_ours_only_when_it_names_us(
    environ: dict[str, str], seconds: float
) -> None:
    assert Systemd.of({"NOTIFY_SOCKET": "/x", **environ}, pid=7).watchdog_s == seconds


async def test_the_watchdog_is_fed_at_least_twice_in_its_time(listener: socket.socket) -> None:
    supervisor = Systemd(listener.getsockname(), watchdog_s=0.2)
    feeding = asyncio.get_running_loop().create_task(supervisor.feed_watchdog(lambda: True))
    received = [await asyncio.to_thread(listener.recv, 99) for _ in range(4)]
    feeding.cancel()
    assert received == [b"WATCHDOG=1"] * 4


async def test_an_unhealthy_service_does_not_feed(listener: socket.socket) -> None:
    supervisor = Systemd(listener.getsockname(), watchdog_s=0.02)
    asked = asyncio.Event()
    times = iter(range(5))

    def healthy() -> bool:
        if next(times, None) is None:
            asked.set()
        return False

    feeding = asyncio.get_running_loop().create_task(supervisor.feed_watchdog(healthy))
    await asyncio.wait_for(asked.wait(), 10)
    feeding.cancel()
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.recv(99)
