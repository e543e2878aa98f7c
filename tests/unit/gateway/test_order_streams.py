"""Streams: serialised once, bounded, and a slow reader is dropped and told."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
from sqlalchemy import Connection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.streams import OrderStreams, Subscriber
from marketplace_core.events import OrderRejected
from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.ports import Record
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading
from tests.harness import running_order
from tests.harness.api import awarded_need, by, order, running, window
from tests.unit.gateway.conftest import SteppingClock

AT = datetime(2017, 7, 20, 23, 0, tzinfo=UTC)
GRID = SettlementGrid(5, "UTC")
SPAN = Interval(AT - timedelta(hours=1), AT + timedelta(hours=1))


def fact(text: str = "x", order_id: str = "ord_1") -> Record:
    rejected = OrderRejected(order_id=order_id, reason=text)
    return Record(shard=0, sequence=1, at=AT, stream=order_id, fact=rejected)


def streams(dropped: list[int], queue: int = 3, clock: SteppingClock | None = None) -> OrderStreams:
    clock = clock or SteppingClock()
    return OrderStreams(clock, GRID, queue=queue, dropped=lambda: dropped.append(1))


async def taken(subscriber: Subscriber) -> bytes:
    return await asyncio.wait_for(subscriber.take(), 1)


async def test_a_message_is_the_same_bytes_for_all() -> None:
    made = streams([])
    one, two = made.subscribe("ord_1", SPAN), made.subscribe("ord_1", SPAN)
    made.heard([fact(), fact(order_id="ord_2")])
    first, second = await taken(one), await taken(two)
    assert first is second
    assert json.loads(first)["record"]["fact"]["kind"] == "OrderRejected"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.take(), 0.05)


async def test_who_falls_behind_is_dropped_and_the_others_go_on() -> None:
    dropped: list[int] = []
    made = streams(dropped)
    slow, quick = made.subscribe("ord_1", SPAN), made.subscribe("ord_1", SPAN)
    for number in range(5):
        made.heard([fact(str(number))])
        assert str(number).encode() in await taken(quick)
    assert (slow.dropped.is_set(), quick.dropped.is_set(), dropped) == (True, False, [1])
    made.unsubscribe("ord_1", slow)
    made.heard([fact("more")])
    assert b"more" in await taken(quick)
    made.unsubscribe("ord_1", quick)
    assert made._topics == {}


async def test_what_devices_do_outside_of_the_order_is_their_sellers_alone() -> None:
    made = streams([])
    reader = made.subscribe("ord_1", Interval(AT, AT + timedelta(minutes=5)))
    made.drives("ord_1", ["a"])
    before, after = AT - timedelta(minutes=1), AT + timedelta(minutes=5)
    made.stored([reading("a", -7.0, before), reading("a", -7.0, after)])
    made.stored([reading("a", 3.0, AT - timedelta(seconds=30)), reading("a", -7.0, after)])
    told = json.loads(await taken(reader))
    assert (told["period_start"], told["measured_kw"]) == ("2017-07-20T23:00:00Z", 3.0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.take(), 0.05)


def reading(series: str, kw: float, at: datetime, seconds: float = 60.0) -> Reading:
    return Reading(series=series, start=at, seconds=seconds, power_kw=Kw(kw))


async def test_power_is_the_mean_so_far_of_each_device_summed() -> None:
    clock = SteppingClock()
    made = streams([], queue=20, clock=clock)
    reader = made.subscribe("ord_1", SPAN)
    made.drives("ord_1", ["a", "b"])
    made.stored([reading("a", 2.0, AT), reading("a", 4.0, AT + timedelta(minutes=1)),
                 reading("b", -1.0, AT), reading("other", 99.0, AT)])  # fmt: skip
    message = json.loads(await taken(reader))
    assert message == {
        "type": "measured", "order_id": "ord_1", "period_start": "2017-07-20T23:00:00Z",
        "measured_kw": 2.0, "devices": 2, "of_devices": 2,
    }  # fmt: skip
    clock.now()
    # A span over the end of a period counts in both.
    made.stored([reading("a", 6.0, AT + timedelta(minutes=4, seconds=30))])
    before, after = json.loads(await taken(reader)), json.loads(await taken(reader))
    assert before["measured_kw"] == pytest.approx((2 * 60 + 4 * 60 + 6 * 30) / 150 - 1.0)
    assert (after["period_start"], after["measured_kw"]) == ("2017-07-20T23:05:00Z", 6.0)


async def submitted(http: httpx.AsyncClient) -> str:
    made = await http.post("/v1/orders", json=order(await awarded_need(http)), headers=by("org_b"))
    identifier: str = made.json()["id"]
    return identifier


def listen(http: httpx.AsyncClient, order_id: str, **more: object) -> connect:
    url = str(http.base_url).replace("http", "ws") + f"/v1/orders/{order_id}/stream"
    return connect(url, additional_headers=by("org_b"), **more)  # type: ignore[arg-type]


async def received(stream: ClientConnection) -> dict[str, object]:
    message: dict[str, object] = json.loads(await asyncio.wait_for(stream.recv(), 10))
    return message


async def read_to_the_end(stream: ClientConnection) -> list[dict[str, object]]:
    """Every message that was on its way, until the connection is closed."""
    messages = []
    async with asyncio.timeout(20):
        while True:
            try:
                messages.append(json.loads(await stream.recv()))
            except ConnectionClosed:
                return messages


async def test_a_reader_hears_what_is_committed(tmp_path: Path) -> None:
    async with running(tmp_path) as (http, application):
        order_id = await submitted(http)
        async with listen(http, order_id) as stream:
            assert (await received(stream))["type"] == "hello"
            services = application.api.state.services
            record = await services.writer.transact(
                lambda tx: tx.append(order_id, fact(order_id=order_id).fact)
            )
            kinds = []
            while "OrderRejected" not in kinds:
                heard = (await received(stream))["record"]
                kinds.append(heard["fact"]["kind"])  # type: ignore[index]
            assert heard["sequence"] == record.sequence  # type: ignore[index]


async def test_who_listens_between_plan_and_dispatch_sees_the_power_of_its_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found as a race: the reader came when the plan was committed and nothing was issued yet."""
    async with running(tmp_path) as (http, application):
        order_id = await submitted(http)
        made = application.api.state.services.streams

        def journal(_: Connection, streams: list[str]) -> list[Record]:
            assert streams == [order_id]
            assert order_id in made._topics, "what is planned while it looks would not be heard"
            return [msgspec.structs.replace(fact(), fact=running_order.planned())]

        monkeypatch.setattr("gateway.api.routes_stream.read_streams", journal)
        async with listen(http, order_id) as stream:
            assert (await received(stream))["type"] == "hello"
            start = datetime.fromisoformat(window()["start"])
            driven, other = running_order.DEVICES[0], "not of this order"
            made.stored([reading(driven, 2.0, start), reading(other, 9.0, start)])
            heard = await received(stream)
            while heard["type"] != "measured":
                heard = await received(stream)
            assert (heard["measured_kw"], heard["of_devices"]) == (2.0, len(running_order.DEVICES))


async def test_a_browser_offers_its_token_as_a_protocol(tmp_path: Path) -> None:
    async with running(tmp_path) as (http, _):
        order_id = await submitted(http)
        url = str(http.base_url).replace("http", "ws") + f"/v1/orders/{order_id}/stream"
        offered = ["flexway.v1", "bearer.b3JnX2I"]  # org_b, in base 64
        async with connect(url, subprotocols=offered) as stream:  # type: ignore[arg-type]
            assert stream.subprotocol == "flexway.v1"
            assert (await received(stream))["type"] == "hello"


async def test_a_reader_that_stops_reading_is_told_and_dropped(tmp_path: Path) -> None:
    async with running(tmp_path, stream_queue=4) as (http, application):
        order_id = await submitted(http)
        made = application.api.state.services.streams
        async with (
            listen(http, order_id, max_queue=1, max_size=None) as slow,
            listen(http, order_id) as quick,
        ):
            await received(quick)
            heard = 0
            while made._topics[order_id].subscribers and len(
                made._topics[order_id].subscribers
            ) > 1:  # fmt: skip
                made.heard([fact("x" * 500_000, order_id)])
                await received(quick)
                heard += 1
                assert heard < 500, "a reader that does not read is never dropped"
            made.heard([fact("still here", order_id)])
            last = await received(quick)
            assert last["record"]["fact"]["reason"] == "still here"  # type: ignore[index]
            messages = await read_to_the_end(slow)
            assert (messages[-1]["type"], slow.close_code) == ("dropped", 1013)
        text = (await http.get("/metrics")).text
        assert "flexway_streams_dropped_total 1.0" in text
