"""Against parties that are not ours: the library's own client, and servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from openleadr import OpenADRClient

from marketplace_core.dispatch.setpoint import Applied


@contextlib.asynccontextmanager
async def stock_client(port: int) -> AsyncIterator[Any]:
    client = OpenADRClient("carpark", f"http://127.0.0.1:{port}/OpenADR2/Simple/2.0b")
    client.seen = []

    async def on_event(event: Any) -> str:
        client.seen.append(event)
        return "optIn"

    client.add_handler("on_event", on_event)
    client.add_handler("on_update_event", on_event)
    client.add_report(
        callback=lambda: 41.0,
        resource_id="dev_site",
        measurement="REAL_POWER",
        unit="W",
        scale="k",
        sampling_rate=timedelta(seconds=1),
        report_duration=timedelta(hours=1),
    )
    await client.run()
    try:
        yield client
    finally:
        await client.stop()


async def test_the_stock_client_is_served_in_full(street: Any) -> None:
    async with street.serving() as adapter, stock_client(adapter.port) as client:
        assert client.registration_id
        (outcome,) = await street.issue(adapter, street.setpoint(power_kw=-80.0))
        assert isinstance(outcome, Applied)
        (event,) = client.seen
        (signal,) = event["event_signals"]
        assert (signal["signal_name"], signal["signal_type"]) == ("LOAD_DISPATCH", "setpoint")
        assert signal["intervals"][0]["signal_payload"] == 80.0
        assert (signal["measurement"]["unit"], signal["measurement"]["scale"]) == ("W", "k")
        assert isinstance(await adapter.release("dev_site", order_id="ord_1", revision=0), Applied)
        assert client.seen[-1]["event_descriptor"]["event_status"] == "cancelled"
        await street.until(lambda: street.sink.readings)
        assert street.sink.readings[0].power_kw == -41.0
        assert street.sink.quarantined == []


@contextlib.asynccontextmanager
async def server(port: int, status: int, body: bytes) -> AsyncIterator[list[str]]:
    hits: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        hits.append(request.path)
        return web.Response(status=status, body=body, content_type="application/xml")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield hits
    finally:
        await runner.cleanup()


async def test_the_site_survives_empty_and_broken_replies(street: Any) -> None:
    async with street.serving() as adapter:
        port = adapter.port
    async with street.ven(port) as ven:
        async with street.serving(port=port):
            await street.until(lambda: ven.registrations)
        for number, (status, body) in enumerate([(200, b""), (500, b"no"), (200, b"<a/>")]):
            ven.measured(datetime.now(UTC), float(-number))
            async with server(port, status, body) as hits:
                await street.until(lambda hits=hits: sum("EiReport" in hit for hit in hits) > 1)
        assert ven.waiting == 3
        async with street.serving(port=port):
            await street.until(lambda: ven.waiting == 0)
    assert [reading.power_kw for reading in street.sink.readings] == [0.0, -1.0, -2.0]


async def test_a_reply_that_never_comes_does_not_keep_the_site_from_ending(street: Any) -> None:
    accepted = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        try:
            await asyncio.Event().wait()
        finally:
            writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(5.0), street.ven(port):
            await accepted.wait()
    finally:
        listener.close()
