"""What organisations may do with their webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import httpx
import msgspec
from sqlalchemy import Connection, Engine

from adapters.webhook.address import same_origin, url_fault
from adapters.webhook.config import WebhookPolicy
from adapters.webhook.courier import Courier
from adapters.webhook.link import Answered, Link
from adapters.webhook.wire import Accepted, Ping, encode, read_reply
from gateway.delivery_book import DeliveryBook, Wall
from gateway.store.engine import run_read
from gateway.store.paging import Page, Slice
from gateway.store.sealing import Sealer
from gateway.store.webhook_log import DeliveryRow, deliveries_page
from gateway.store.webhooks import (
    DISPATCH,
    WebhookRow,
    add_webhook,
    remove_webhook,
    replace_secret,
    webhook_by_id,
    webhooks_page,
)
from gateway.store.writer import Transaction, Writer
from gateway.webhook_views import Answers, KeptAnswer, PingResult, WebhookView
from marketplace_core.errors import RejectedError

EVENTS: Final = (
    DISPATCH, "order.planned", "order.infeasible", "order.rejected", "order.settled",
)  # fmt: skip
"""What an endpoint can take."""


class Webhooks:
    """Registers, rotates, tests and forgets endpoints, each for its own organisation only."""

    def __init__(
        self,
        book: DeliveryBook,
        *,
        engine: Engine,
        writer: Writer,
        sealer: Sealer,
        link: Link,
        courier: Courier,
        policy: WebhookPolicy,
        wall: Wall,
        new_id: Callable[[str], str],
        new_secret: Callable[[], str],
        overlap: timedelta,
    ) -> None:
        """`overlap`: how long the secret before stays valid after a rotation."""
        self._book = book
        self._engine = engine
        self._writer = writer
        self._sealer = sealer
        self._link = link
        self._courier = courier
        self._policy = policy
        self._wall = wall
        self._new_id = new_id
        self._new_secret = new_secret
        self._overlap = overlap
        self._registering: set[str] = set()

    async def register(
        self,
        organisation: str,
        answers: Answers,
        *,
        url: str,
        status_url: str,
        events: tuple[str, ...],
    ) -> tuple[WebhookView, str]:
        """Challenge an endpoint, then keep it; returns its secret, to a repeat the same one.

        Raises:
            RequestError: the URL is not taken, or the endpoint did not echo the challenge.
        """
        kept = await self._writer.transact(lambda tx: answers.kept(tx.connection))
        if kept is not None:
            return self._opened(kept)
        self._check(url, status_url)
        await self._challenge_alone(organisation, url)
        secret, webhook_id = self._new_secret(), self._new_id("whk")
        row = WebhookRow(
            id=webhook_id, organisation=organisation, url=url, status_url=status_url,
            events=events, created=self._wall(),
            secret=self._sealer.seal(secret, bound_to=webhook_id),
        )  # fmt: skip

        def work(connection: Connection) -> WebhookRow:
            add_webhook(connection, row)
            return row

        return await self._once(answers, work)

    async def rotate(
        self, organisation: str, webhook_id: str, answers: Answers
    ) -> tuple[WebhookView, str]:
        """Make a new secret; messages carry a signature of the old one too for a while."""
        secret = self._new_secret()
        sealed = self._sealer.seal(secret, bound_to=webhook_id)
        until = self._wall() + self._overlap

        def work(connection: Connection) -> WebhookRow:
            row = webhook_by_id(connection, organisation, webhook_id)
            replace_secret(connection, row, secret=sealed, previous_until=until)
            return webhook_by_id(connection, organisation, webhook_id)

        return await self._once(answers, work)

    def owned(self, organisation: str, page: Page) -> Slice[WebhookView]:
        """The endpoints of an organisation, oldest first."""
        found = run_read(self._engine, lambda at: webhooks_page(at, organisation, page))
        return Slice([self._view(row) for row in found.items], found.following)

    def deliveries(self, organisation: str, webhook_id: str, page: Page) -> Slice[DeliveryRow]:
        """The newest deliveries to an endpoint; NotFoundError when it is not its own."""

        def read(connection: Connection) -> Slice[DeliveryRow]:
            webhook_by_id(connection, organisation, webhook_id)
            return deliveries_page(connection, organisation, webhook_id, page)

        return run_read(self._engine, read)

    async def remove(self, organisation: str, webhook_id: str) -> None:
        """Forget an endpoint; NotFoundError when it is not its own."""
        await self._writer.transact(
            lambda tx: remove_webhook(tx.connection, organisation, webhook_id)
        )
        self._courier.forget(webhook_id)

    async def test(self, organisation: str, webhook_id: str) -> PingResult:
        """Ping an endpoint now; NotFoundError when it is not its own."""
        row = await asyncio.to_thread(self._own, organisation, webhook_id)
        ping = Ping(id=self._new_id("png"), issued_at=self._wall())
        exchange = await self._courier.ping(self._book.endpoint(row), encode(ping), ping.id)
        if not isinstance(exchange, Answered):
            return PingResult(
                delivered=False, http_status=None, latency_ms=None, detail=exchange.reason
            )
        reply = read_reply(exchange.status, exchange.body)
        return PingResult(
            delivered=isinstance(reply, Accepted),
            http_status=exchange.status,
            latency_ms=round(exchange.latency_s * 1000),
            detail="" if isinstance(reply, Accepted) else reply.reason,
        )

    async def _once(
        self, answers: Answers, work: Callable[[Connection], WebhookRow]
    ) -> tuple[WebhookView, str]:
        """Do the work unless its answer is kept, and keep that in the same transaction."""

        def unit(transaction: Transaction) -> bytes:
            kept = answers.kept(transaction.connection)
            if kept is not None:
                return kept
            row = work(transaction.connection)
            answer = msgspec.json.encode(KeptAnswer(view=self._view(row), sealed=row.secret))
            answers.keep(transaction.connection, answer)
            return answer

        return self._opened(await self._writer.transact(unit))

    def _opened(self, kept: bytes) -> tuple[WebhookView, str]:
        answer = msgspec.json.decode(kept, type=KeptAnswer)
        return answer.view, self._sealer.open(answer.sealed, bound_to=answer.view.id)

    def _own(self, organisation: str, webhook_id: str) -> WebhookRow:
        return run_read(self._engine, lambda at: webhook_by_id(at, organisation, webhook_id))

    def _check(self, url: str, status_url: str) -> None:
        for name, value in (("url", url), ("status_url", status_url)):
            fault = url_fault(value, self._policy) if value else ""
            if fault:
                raise RejectedError(
                    f"{name} is not taken", field=name, rule=fault,
                    remedy="give a public https URL",
                )  # fmt: skip
        if status_url and not same_origin(url, status_url):
            raise RejectedError(
                "status_url is on another server than url", field="status_url",
                rule="the challenge shows who holds the server of `url`, and no other",
                remedy="serve both from one scheme, host and port",
            )  # fmt: skip

    async def _challenge_alone(self, organisation: str, url: str) -> None:
        """One at a time for each organisation: else we could be used to flood a server."""
        if organisation in self._registering:
            raise RejectedError(
                "another registration is under way", field="url",
                rule="one registration of an organisation at a time",
                remedy="wait for its answer",
            )  # fmt: skip
        self._registering.add(organisation)
        try:
            await self._challenge(url)
        finally:
            self._registering.discard(organisation)

    async def _challenge(self, url: str) -> None:
        """Whoever registers a URL has to hold the server behind it."""
        text = self._new_secret()
        target = str(httpx.URL(url).copy_merge_params({"echo": text}))
        exchange = await self._link.exchange("GET", target, headers={})
        if not isinstance(exchange, Answered):
            found = exchange.reason
        elif exchange.status == HTTPStatus.OK and exchange.body.strip() == text.encode():
            return
        else:
            found = f"HTTP {exchange.status} with another body"
        raise RejectedError(
            f"the endpoint did not pass the challenge: {found}", field="url",
            rule="GET url?echo=TEXT answers 200 with TEXT and nothing else",
            remedy="answer the challenge, then register again",
        )  # fmt: skip

    def _view(self, row: WebhookRow) -> WebhookView:
        lane = self._courier.lane(row.id)
        state = "unheard" if lane.heard_at is None else "healthy"
        if lane.last_fault:
            state = "broken" if lane.breaker.broken else "failing"
        return WebhookView(
            id=row.id, url=row.url, status_url=row.status_url, events=row.events,
            created=row.created, state=state, last_fault=lane.last_fault,
            previous_secret_until=row.previous_until,
        )  # fmt: skip
