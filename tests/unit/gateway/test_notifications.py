"""Notifications wait in the outbox and arrive in order; deliveries are kept and bounded."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from adapters.webhook.config import Delivery, DeliveryStatus, WebhookPolicy
from adapters.webhook.courier import Courier
from adapters.webhook.link import Link
from adapters.webhook.wire import Notification, decode, encode
from gateway.delivery_book import DeliveryBook
from gateway.notifications import EVENTS, Relay
from gateway.store.paging import Page
from gateway.store.sealing import Sealer
from gateway.store.webhook_log import (
    KEPT_DELIVERIES,
    DeliveryRow,
    Waiting,
    deliveries_page,
    enqueue,
    first_waiting,
)
from gateway.store.webhooks import WebhookRow, add_webhook, remove_webhook, replace_secret
from gateway.store.writer import Writer
from gateway.webhooks import EVENTS as OFFERED
from marketplace_core.errors import RejectedError
from tests.harness.clocks import WallClock, eventually
from tests.harness.webhook import ACCEPTED, FAST, Foreign, foreign, http, says

SEALER = Sealer(bytes(32))


def wall() -> datetime:
    return datetime.now(UTC)


@dataclasses.dataclass
class Post:
    """A relay over a real database, and endpoints by organisation."""

    engine: Engine
    writer: Writer
    book: DeliveryBook
    relay: Relay
    counts: dict[str, int]

    async def add(self, organisation: str, url: str) -> WebhookRow:
        row = WebhookRow(
            id=f"whk_{organisation}", organisation=organisation, url=url, status_url="",
            events=("order.planned",), created=wall(),
            secret=SEALER.seal("fxw_s", bound_to=f"whk_{organisation}"),
        )  # fmt: skip
        await self.writer.transact(lambda tx: add_webhook(tx.connection, row))
        return row

    async def wait(self, row: WebhookRow, *numbers: int, since: datetime | None = None) -> None:
        def message(number: int) -> Waiting:
            body = encode(Notification(id=f"evt_{number}", event="order.planned",
                                       issued_at=wall(), data={"number": number}))  # fmt: skip
            return Waiting(number=0, webhook_id=row.id, event="order.planned", body=body,
                           message_id=f"evt_{number}", since=since or wall())  # fmt: skip

        waiting = [message(number) for number in numbers]
        await self.writer.transact(lambda tx: enqueue(tx.connection, waiting))
        self.relay.wake()

    def left(self) -> int:
        with self.engine.connect() as connection:
            return len(first_waiting(connection))

    def deliveries(self, row: WebhookRow) -> list[DeliveryRow]:
        with self.engine.connect() as connection:
            return deliveries_page(connection, row.organisation, row.id, Page(200)).items


@asynccontextmanager
async def post(
    engine: Engine, writer: Writer, *, give_up_s: float = 60.0, policy: WebhookPolicy = FAST
) -> AsyncIterator[Post]:
    counts: dict[str, int] = {}

    def count(outcome: str) -> None:
        counts[outcome] = counts.get(outcome, 0) + 1

    book = DeliveryBook(engine=engine, writer=writer, sealer=SEALER, wall=wall)
    link = Link(policy)
    courier = Courier(link, book, policy=policy, monotonic=time.monotonic, unix=time.time,
                      jitter=lambda: 1.0, count=count)  # fmt: skip
    relay = Relay(
        book, engine=engine, writer=writer, link=link, courier=courier, clock=WallClock(),
        wall=wall, count=count, first_retry_s=0.05, give_up=timedelta(seconds=give_up_s),
    )  # fmt: skip
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(relay.run())
        try:
            yield Post(engine, writer, book, relay, counts)
        finally:
            task.cancel()


def numbers_of(server: Foreign) -> list[Any]:
    messages = [decode(request.body) for request in server.requests]
    return [message.data["number"] for message in messages if isinstance(message, Notification)]


async def test_they_arrive_in_order_and_a_fault_holds_up_only_its_own_endpoint(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    faults = says(http(500), http(500), http(500), http(503), http(200, ACCEPTED))
    async with (
        foreign(faults) as lame, foreign(says(http(204))) as good,
        post(engine, start_writer()) as here,
    ):  # fmt: skip
        slow, quick = await here.add("org_a", lame.url), await here.add("org_b", good.url)
        await here.wait(slow, 1, 2, 3)
        await here.wait(quick, 7, 8)
        await eventually(lambda: numbers_of(good) == [7, 8], what="the healthy endpoint")
        await eventually(lambda: here.left() == 0, what="the lame endpoint")
        assert numbers_of(lame) == [1, 1, 1, 1, 1, 2, 3]
        first = next(row for row in here.deliveries(slow) if row.message_id == "evt_1")
        assert (first.status, first.attempts) == ("accepted", 5)
        assert first.latency_ms is not None


async def test_a_hanging_endpoint_holds_up_nobody_else(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    async def hang(_: object, __: object) -> None:
        await asyncio.sleep(30)

    async with (
        foreign(hang) as dead, foreign(says(http(200))) as good,
        post(engine, start_writer()) as here,
    ):  # fmt: skip
        stuck, quick = await here.add("org_a", dead.url), await here.add("org_b", good.url)
        await here.wait(stuck, 1)
        await eventually(lambda: bool(dead.requests), what="the hanging request")
        await here.wait(quick, *range(10))
        await eventually(lambda: numbers_of(good) == list(range(10)), what="the healthy one")
        assert len(dead.requests) == 1


async def test_what_is_never_taken_is_given_up_and_shown_as_dead(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    async with foreign(says(http(500))) as server, post(engine, start_writer()) as here:
        row = await here.add("org_a", server.url)
        await here.wait(row, 1, since=wall() - timedelta(hours=1))
        await eventually(lambda: here.left() == 0, what="the end of it")
        (dead,) = here.deliveries(row)
        assert dead.status == "dead"
        assert "HTTP 500" in dead.detail
        assert here.counts["dead"] == 1


async def test_what_is_refused_is_not_repeated(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    async with foreign(says(http(410))) as server, post(engine, start_writer()) as here:
        row = await here.add("org_a", server.url)
        await here.wait(row, 1, 2)
        await eventually(lambda: here.left() == 0, what="the end of it")
        assert numbers_of(server) == [1, 2]
        assert {row.status for row in here.deliveries(row)} == {"refused"}


async def test_what_waits_outlives_the_process(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    writer = start_writer()
    async with foreign(says(http(500), http(500), http(500), http(200))) as server:
        async with post(engine, writer) as here:
            row = await here.add("org_a", server.url)
            await here.wait(row, 1, 2)
            await eventually(lambda: bool(server.requests), what="an attempt")
        async with post(engine, writer) as again:
            await eventually(lambda: again.left() == 0, what="the rest")
        assert list(dict.fromkeys(numbers_of(server))) == [1, 2]
        attempts = [int(request.headers["flexway-attempt"]) for request in server.requests
                    if decode(request.body).id == "evt_1"]  # fmt: skip
        assert attempts == list(range(1, len(attempts) + 1))


async def test_only_the_newest_deliveries_are_kept_and_pending_ones_always(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    async with post(engine, start_writer()) as here:
        row = await here.add("org_a", "http://127.0.0.1:1/")
        endpoint = here.book.endpoint(row)

        def delivery(number: int) -> Delivery:
            return Delivery(id=f"dlv_{number:04}", endpoint=endpoint, message_id=f"m_{number}",
                            kind="dispatch", body=b"first")  # fmt: skip

        await here.book.attempting(delivery(9_999))
        for number in range(KEPT_DELIVERIES + 20):
            await here.book.attempting(delivery(number))
            await here.book.ended(
                delivery(number), DeliveryStatus.ACCEPTED, detail="", latency_s=0.01
            )
        rows = here.deliveries(row)
        ended = [one.id for one in rows if one.status == "accepted"]
        assert ended[0] == f"dlv_{KEPT_DELIVERIES + 19:04}"
        with engine.connect() as connection:
            assert deliveries_page(connection, "org_b", row.id, Page(200)).items == []
        again = await here.book.attempting(dataclasses.replace(delivery(9_999), body=b"another"))
        assert (again.number, again.body) == (2, b"first")


async def test_a_webhook_that_is_deleted_takes_everything_with_it(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    writer = start_writer()
    async with post(engine, writer) as here:
        row = await here.add("org_a", "http://127.0.0.1:1/")
        endpoint = here.book.endpoint(row)
        await here.wait(row, 1)
        with pytest.raises(RejectedError):
            await writer.transact(lambda tx: remove_webhook(tx.connection, "org_b", row.id))
        await writer.transact(lambda tx: remove_webhook(tx.connection, "org_a", row.id))
        assert here.left() == 0
        gone = Delivery(id="dlv_x", endpoint=endpoint, message_id="m", kind="dispatch", body=b"x")
        assert (await here.book.attempting(gone)).number == 1
        assert here.deliveries(row) == []
        assert await here.book.dispatch_endpoint("org_a") is None


async def test_a_secret_that_does_not_open_harms_its_own_webhook_only(
    engine: Engine, start_writer: Callable[[], Writer]
) -> None:
    async with foreign(says(http(200))) as good, post(engine, start_writer()) as here:
        bad, fine = await here.add("org_a", good.url), await here.add("org_b", good.url)
        await here.writer.transact(
            lambda tx: replace_secret(tx.connection, bad, secret=b"x" * 40, previous_until=wall())
        )
        await here.wait(bad, 1)
        await here.wait(fine, 7, 8)
        await eventually(lambda: numbers_of(good) == [7, 8], what="the other webhook")
        await eventually(lambda: here.left() == 1, what="its outbox to be empty")


def test_every_event_that_is_told_can_be_subscribed_to() -> None:
    assert set(EVENTS.values()) | {"dispatch"} == set(OFFERED)
