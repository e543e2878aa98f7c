"""Tells organisations by webhook what happened to their orders.

`Notify` reads the journal like a stage does, with a cursor of its own, and lets messages wait
in the outbox in the same transaction; `Relay` sends them: at least once, and to each endpoint
in the order in which things happened. What is not taken is tried until it is too old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import Engine

from adapters.webhook.config import Delivery, DeliveryStatus
from adapters.webhook.courier import Courier
from adapters.webhook.link import Link, NotSent
from adapters.webhook.mapping import delivery_id
from adapters.webhook.wire import Notification, Unclear, encode
from gateway.delivery_book import DeliveryBook, Wall
from gateway.store.engine import run_read
from gateway.store.market import OrderRow, order_by_id
from gateway.store.webhook_log import Waiting, dequeue, enqueue, first_waiting
from gateway.store.webhooks import WebhookRow, subscribers
from gateway.store.writer import Transaction, Writer
from marketplace_core.events import (
    OrderFact,
    OrderInfeasible,
    OrderPlanned,
    OrderRejected,
    OrderSettled,
)
from marketplace_core.ports import Clock, Record

_IDLE_S: Final = 60.0
"""Longest wait between two looks at the outbox, should nobody say that something waits."""
_LONGEST_RETRY_S: Final = 300.0
_ONE_DELIVERY_S: Final = 60.0
"""A delivery and its repeats end after this, and the message waits on."""
EVENTS: Final[dict[type[OrderFact], str]] = {
    OrderRejected: "order.rejected",
    OrderPlanned: "order.planned",
    OrderInfeasible: "order.infeasible",
    OrderSettled: "order.settled",
}
"""Facts that organisations are told of, and what they are called to them."""
_log = structlog.get_logger(__name__)


class Notify:
    """Turns facts into messages that wait, for every organisation that they concern."""

    name = "notify"
    consumes = frozenset(EVENTS)
    emits: frozenset[type[OrderFact]] = frozenset()

    def __init__(self, *, wall: Wall, waiting: Callable[[], None]) -> None:
        """`waiting` hears once messages are committed."""
        self._wall = wall
        self._waiting = waiting

    def handle(self, record: Record, transaction: Transaction) -> None:
        """Let a message wait for each endpoint that takes the event."""
        fact = record.fact
        if not isinstance(fact, OrderFact) or type(fact) not in EVENTS:
            return
        event, since = EVENTS[type(fact)], self._wall()
        told = _told(fact, order_by_id(transaction.connection, fact.order_id))
        rows = [
            _waiting(record, event, endpoint, told[endpoint.organisation], since)
            for endpoint in subscribers(transaction.connection, event, told)
        ]
        if rows:
            enqueue(transaction.connection, rows)
            transaction.after_commit.append(self._waiting)


class Relay:
    """Sends what waits, to every endpoint at once and to each in order."""

    def __init__(
        self,
        book: DeliveryBook,
        *,
        engine: Engine,
        writer: Writer,
        link: Link,
        courier: Courier,
        clock: Clock,
        wall: Wall,
        count: Callable[[str], None],
        first_retry_s: float,
        give_up: timedelta,
    ) -> None:
        """`first_retry_s`: wall seconds after the first failure; they double with each.

        `give_up`: age at which a message that was never taken is put aside as dead.
        """
        self._book = book
        self._engine = engine
        self._writer = writer
        self._link = link
        self._courier = courier
        self._clock = clock
        self._wall = wall
        self._count = count
        self._first_retry_s = first_retry_s
        self._give_up = give_up
        self._wake = asyncio.Event()
        self._busy: set[str] = set()
        self._failures: dict[str, int] = {}
        self._retry_at: dict[str, float] = {}

    def wake(self) -> None:
        """Something waits."""
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled; then close the link that all webhooks share."""
        async with self._link, asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                rest_s = _IDLE_S
                for owner, waiting in await asyncio.to_thread(self._first):
                    if owner.id in self._busy:
                        continue
                    due_s = self._retry_at.get(owner.id, 0.0) - self._clock.monotonic()
                    if due_s <= 0:
                        self._busy.add(owner.id)
                        tasks.create_task(self._send(owner, waiting))
                    else:
                        rest_s = min(rest_s, due_s)
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest_s):
                        await self._wake.wait()

    def _first(self) -> list[tuple[WebhookRow, Waiting]]:
        return run_read(self._engine, first_waiting)

    async def _send(self, owner: WebhookRow, waiting: Waiting) -> None:
        endpoint = self._book.usable(owner)
        if endpoint is not None:
            delivery = Delivery(
                id=delivery_id(owner.id, waiting.message_id), endpoint=endpoint,
                message_id=waiting.message_id, kind=waiting.event, body=waiting.body,
            )  # fmt: skip
            await self._deliver(owner, waiting, delivery)
        elif self._put_off(owner, waiting):
            await self._done(waiting)
        self._busy.discard(owner.id)
        self._wake.set()

    async def _deliver(self, owner: WebhookRow, waiting: Waiting, delivery: Delivery) -> None:
        until = self._clock.monotonic() + _ONE_DELIVERY_S
        result = await self._courier.deliver(delivery, until=until)
        if not isinstance(result, NotSent | Unclear):
            self._failures.pop(owner.id, None)
            await self._done(waiting)
        elif self._put_off(owner, waiting):
            await self._book.ended(
                delivery, DeliveryStatus.DEAD, detail=result.reason, latency_s=None
            )
            await self._done(waiting)

    def _put_off(self, owner: WebhookRow, waiting: Waiting) -> bool:
        """Let an endpoint rest, longer each time; True when the message is given up."""
        failures = self._failures.get(owner.id, 0)
        self._failures[owner.id] = failures + 1
        wait = min(_LONGEST_RETRY_S, self._first_retry_s * 2.0 ** min(failures, 10))
        self._retry_at[owner.id] = self._clock.monotonic() + wait
        if self._wall() - waiting.since < self._give_up:
            return False
        _log.warning("notification_given_up", webhook=owner.id, message_id=waiting.message_id)
        self._count(DeliveryStatus.DEAD.value)
        return True

    async def _done(self, waiting: Waiting) -> None:
        await self._writer.transact(lambda tx: dequeue(tx.connection, waiting.number))


def _waiting(
    record: Record, event: str, endpoint: WebhookRow, data: dict[str, Any], since: datetime
) -> Waiting:
    message = Notification(
        id=f"evt_{record.shard}_{record.sequence}", event=event, issued_at=record.at, data=data
    )
    return Waiting(
        number=0, webhook_id=endpoint.id, event=event, message_id=message.id,
        body=encode(message), since=since,
    )  # fmt: skip


def _told(fact: OrderFact, row: OrderRow) -> dict[str, dict[str, Any]]:
    """What each organisation is told: the buyer all of its order, a seller its own part."""
    order = row.order
    basis = {"order_id": order.id, "revision": fact.revision, "need_id": order.need_id}
    told: dict[str, dict[str, Any]] = {order.buyer: {**basis, "role": "buyer"}}
    match fact:
        case OrderRejected(reason=reason):
            told[order.buyer]["reason"] = reason
        case OrderInfeasible(missing_kw=missing_kw):
            told[order.buyer]["missing_kw"] = missing_kw
        case OrderPlanned():
            _tell_plan(told, fact, row, basis)
        case OrderSettled():
            told[order.buyer]["lines"] = msgspec.to_builtins(fact.lines)
            for seller in {line.seller for line in fact.lines} - {order.buyer}:
                own = [line for line in fact.lines if line.seller == seller]
                told[seller] = {**basis, "role": "seller", "lines": msgspec.to_builtins(own)}
        case _:
            raise TypeError(f"{type(fact).__name__} is told to nobody: leave it out of EVENTS")
    return told


def _tell_plan(
    told: dict[str, dict[str, Any]], fact: OrderPlanned, row: OrderRow, basis: dict[str, Any]
) -> None:
    buyer = row.order.buyer
    interval = msgspec.to_builtins(fact.interval)
    told[buyer].update(
        interval=interval,
        planned_kw=sum(allocation.share_kw for allocation in fact.allocations),
        missing_kw=fact.missing_kw,
    )
    seller_of = {call.contract_id: call.seller for call in row.calls}
    for allocation in fact.allocations:
        seller = seller_of[allocation.contract_id]
        if seller == buyer:
            continue
        part = told.setdefault(
            seller, {**basis, "role": "seller", "interval": interval, "allocations": []}
        )
        part["allocations"].append(
            {"device_id": allocation.device_id, "share_kw": allocation.share_kw,
             "power_kw": allocation.power_kw}
        )  # fmt: skip
