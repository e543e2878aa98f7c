"""The relay that can be cut, and the backend that posts until it is heard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from firmware_sim.links.openadr import certificates
from firmware_sim.links.uplink import UplinkLink
from firmware_sim.links.webhook import WebhookLink
from firmware_sim.records import forget
from firmware_sim.scenario import Fleet, Incident
from firmware_sim.servers.uplink import Uplink
from marketplace_core.errors import ConfigError
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading
from tests.harness.lab import HOST

AT = datetime(2017, 7, 20, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FLEET = Fleet(id="dev_fleet", seller="org_cars", stations=3, rate_kw=6.6)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def running(part: Any) -> AsyncIterator[None]:
    started = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(part.run(started.set))
        async with asyncio.timeout(10):
            await started.wait()
        try:
            yield
        finally:
            task.cancel()


async def said_back(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(text)
    answer = await reader.read(100)
    writer.close()
    return answer


async def reaches(port: int, text: bytes) -> bool:
    """Whether the relay answers; it may take the loop a moment to listen again."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await said_back(port, text) == text
            except OSError:
                await asyncio.sleep(0.01)


async def gone(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closed or reset the connection."""
    try:
        return await reader.read(100) == b""
    except ConnectionResetError:
        return True


async def refused(port: int) -> None:
    """Return once nothing listens any more; time out while something does."""
    async with asyncio.timeout(10):
        while True:
            try:
                await said_back(port, b"x")
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                pass
            await asyncio.sleep(0.01)


async def test_a_relay_carries_both_ways_until_it_is_cut_and_again_when_it_is_not() -> None:
    async with await asyncio.start_server(echo, HOST, 0) as server:
        uplink = Uplink((HOST, server.sockets[0].getsockname()[1]))
        async with running(uplink):
            port = uplink.port
            assert await said_back(port, b"one") == b"one"
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"two")
            assert await reader.read(100) == b"two"
            uplink.switch(up=False)
            assert await gone(reader)
            writer.close()
            await refused(port)
            uplink.switch(up=True)
            assert await reaches(port, b"four")
            assert uplink.port == port


async def test_a_relay_whose_target_is_away_closes_and_lives() -> None:
    server = await asyncio.start_server(echo, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    uplink = Uplink((HOST, port))
    async with running(uplink):
        for _ in range(2):
            assert await said_back_or_nothing(uplink.port) == b""


async def said_back_or_nothing(port: int) -> bytes:
    try:
        return await said_back(port, b"x")
    except ConnectionResetError:
        return b""


async def test_the_uplink_is_lost_in_the_market_minutes_of_its_incident() -> None:
    incidents = (
        Incident(kind="uplink_lost", at=AT, until=AT + 2 * MINUTE),
        Incident(kind="gateway_killed", at=AT + 9 * MINUTE),
    )
    async with await asyncio.start_server(echo, HOST, 0) as server:
        link = UplinkLink(incidents, broker=(HOST, server.sockets[0].getsockname()[1]))
        async with running(link):
            port = link.addresses()["uplink"]["port"]
            for at, up in ((-1, True), (0, False), (1, False), (2, True), (9, True)):
                link.disturb(AT + at * MINUTE)
                if up:
                    assert await reaches(port, b"x")
                else:
                    await refused(port)


class Api:
    """An HTTP server that answers as told and keeps what it took."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, list[dict[str, Any]]]] = []
        self.taken: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
                body = await reader.readexactly(int(fields["content-length"]))
                rows = json.loads(body)
                self.requests.append((head[0], fields["authorization"], rows))
                code = self.answers.pop(0) if self.answers else 202
                if code // 100 == 2:
                    self.taken += rows
                if code == 0:
                    break
                writer.write(f"HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n".encode())
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def reading(minute: int) -> dict[str, Reading]:
    return {
        FLEET.id: Reading(
            series=FLEET.id, start=AT + minute * MINUTE, seconds=60, power_kw=Kw(-float(minute))
        )
    }


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - another party's state has no event
            await asyncio.sleep(0.01)


def backend(folder: Path, port: int, **more: Any) -> WebhookLink:
    token = folder / "token"
    token.write_text("s3cret\n")
    return WebhookLink(
        FLEET, api_url=f"http://{HOST}:{port}/", token_file=token, record=forget, **more
    )


async def test_readings_are_posted_in_order_and_again_until_the_api_has_them(
    tmp_path: Path,
) -> None:
    api = Api(503, 0, 401)
    async with await asyncio.start_server(api.serve, HOST, 0) as server:
        link = backend(tmp_path, server.sockets[0].getsockname()[1])
        async with running(link):
            for minute in range(3):
                link.report(reading(minute))
            await eventually(lambda: len(api.requests) >= 2)
            link.report(reading(3))
            await eventually(lambda: link.waiting == 0)
    assert [row["power_kw"] for row in api.taken] == [0.0, -1.0, -2.0, -3.0]
    assert api.taken[0] == {
        "series": "dev_fleet", "start": "2017-07-20T20:00:00.000Z", "seconds": 60.0,
        "power_kw": 0.0,
    }  # fmt: skip
    assert {(line, token) for line, token, _ in api.requests} == {
        ("POST /v1/readings HTTP/1.1", "bearer s3cret")
    }
    assert len(api.requests) >= 4


async def test_an_api_that_is_not_there_yet_gets_everything_later(tmp_path: Path) -> None:
    api = Api()
    server = await asyncio.start_server(api.serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    link = backend(tmp_path, port)
    async with running(link):
        link.report(reading(0))
        await asyncio.sleep(0.05)
        assert link.waiting == 1
        async with await asyncio.start_server(api.serve, HOST, port):
            await eventually(lambda: link.waiting == 0)
    assert len(api.taken) == 1


class Receiver:
    """A receiver of dispatches that agreed to something."""

    port = 4711

    def commanded_kw(self, at: datetime) -> float | None:
        return -12.5 if at.tzinfo is not None else None

    async def run(self, started: Callable[[], None]) -> None:
        started()
        await asyncio.Event().wait()


async def test_a_backend_obeys_what_its_receiver_agreed_to(tmp_path: Path) -> None:
    link = backend(tmp_path, 9, receiver=Receiver())
    assert link.commands() == {"dev_fleet": -12.5}
    assert link.addresses() == {"webhook": {"dev_fleet": {"host": HOST, "port": 4711}}}
    async with running(link):
        pass
    alone = backend(tmp_path, 9)
    assert (alone.commands(), alone.addresses()) == ({"dev_fleet": None}, {})


def test_a_token_that_is_not_there_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text(" \n")
    for path, problem in ((tmp_path / "none", "cannot be read"), (empty, "holds no token")):
        with pytest.raises(ConfigError, match=problem):
            WebhookLink(FLEET, api_url="http://x", token_file=path, record=forget)


def test_a_certificate_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "garage-1.pem").touch()
    (tmp_path / "garage-1.key").touch()
    with pytest.raises(ConfigError, match=r"ca\.pem is missing"):
        certificates(tmp_path, "garage-1")
    (tmp_path / "ca.pem").touch()
    assert certificates(tmp_path, "garage-1").key == tmp_path / "garage-1.key"
