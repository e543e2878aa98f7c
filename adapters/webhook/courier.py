"""Delivers one message: attempts, back-off, breaker, and a durable record of each step.

A message is known by its id wherever it arrives, so an attempt whose answer was lost is
repeated while the message means anything. What was certainly not sent is not repeated here:
whoever asked decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

import httpx
import structlog

from adapters.webhook.breaker import Breaker
from adapters.webhook.config import (
    COMMANDS,
    Delivery,
    DeliveryLog,
    DeliveryStatus,
    Endpoint,
    WebhookPolicy,
)
from adapters.webhook.link import Answered, Exchange, Link, NoAnswer, NotSent
from adapters.webhook.signature import ATTEMPT, DELIVERY, SIGNATURE, sign
from adapters.webhook.wire import Accepted, Declined, Reply, Unclear, read_reply

Now = Callable[[], float]
Delivered = Accepted | Declined | NotSent | Unclear
"""How a delivery ended."""
_STATUS: Final = {
    Accepted: DeliveryStatus.ACCEPTED,
    Declined: DeliveryStatus.REFUSED,
    NotSent: DeliveryStatus.UNREACHABLE,
    Unclear: DeliveryStatus.UNCONFIRMED,
}
_SERVER_ERROR: Final = 500
_LATE: Final = "its time was over, or it was withdrawn, before it could be sent"
_log = structlog.get_logger(__name__)


class Lane:
    """What is kept of one endpoint while the process lives."""

    def __init__(self, policy: WebhookPolicy) -> None:
        self.breaker = Breaker(broken_after=policy.broken_after, trial_every_s=policy.trial_every_s)
        self.room = asyncio.Semaphore(policy.per_endpoint)
        self.heard_at: float | None = None
        """Monotonic seconds of the last answer that can be relied on."""
        self.last_fault = ""
        """Why the last attempt failed; empty when it did not."""


class Courier:
    """Delivers to every endpoint, at bounded concurrency."""

    def __init__(
        self,
        link: Link,
        log: DeliveryLog,
        *,
        policy: WebhookPolicy,
        monotonic: Now,
        unix: Now,
        jitter: Now,
        count: Callable[[str], None],
    ) -> None:
        """`unix` gives wall seconds since 1970, `jitter` a number in 0..1.

        `count` hears of every attempt by its outcome (`accepted`, `refused`, `unreachable`,
        `unconfirmed`) and of `broken` when an endpoint is marked so.
        """
        self._link = link
        self._log = log
        self._policy = policy
        self._monotonic = monotonic
        self._unix = unix
        self._jitter = jitter
        self._count = count
        self._lanes: dict[str, Lane] = {}
        # notices may hang without keeping a command from being sent
        self._commands = asyncio.Semaphore(policy.concurrency)
        self._notices = asyncio.Semaphore(policy.concurrency)

    def lane(self, endpoint_id: str) -> Lane:
        """What is known of an endpoint."""
        return self._lanes.setdefault(endpoint_id, Lane(self._policy))

    def forget(self, endpoint_id: str) -> None:
        """An endpoint was removed."""
        self._lanes.pop(endpoint_id, None)

    async def deliver(
        self,
        delivery: Delivery,
        *,
        until: float,
        withdrawn: Callable[[], bool] = lambda: False,
        doubtful: bool = False,
        urgent: bool = False,
    ) -> Delivered:
        """Deliver a message, trying until it is answered or monotonic `until` has come.

        `withdrawn` is asked before every attempt; `doubtful` says that an earlier delivery of
        it may have arrived; `urgent` passes queues and the breaker.
        Raises StoreError.
        """
        latency: float | None = None

        def over() -> bool:
            return withdrawn() or self._monotonic() >= until

        result: Delivered = Unclear(_LATE) if doubtful else NotSent(_LATE)
        for trial in range(self._policy.attempts):
            if trial:
                await self._back_off(trial, until)
            if over():
                break
            exchange = await self._attempt(delivery, over=over, urgent=urgent)
            latency = exchange.latency_s if isinstance(exchange, Answered) else None
            if not isinstance(exchange, NotSent):
                result = _reply(exchange)
            elif doubtful:
                result = Unclear(f"an earlier attempt may have arrived; now: {exchange.reason}")
            elif not isinstance(result, Unclear):
                result = exchange
            if not isinstance(result, Unclear):
                break
        detail = "" if isinstance(result, Accepted) else _reason(result)
        await self._log.ended(delivery, _STATUS[type(result)], detail=detail, latency_s=latency)
        return result

    async def ping(self, endpoint: Endpoint, body: bytes, ping_id: str) -> Exchange:
        """One signed ping that is not recorded. Who refuses it is not believed present."""
        headers = self._headers(endpoint, body, ping_id, 1)
        exchange = await self._link.exchange("POST", endpoint.url, headers=headers, body=body)
        result = _result(exchange)
        if isinstance(result, Declined):
            self._count(_STATUS[Declined].value)
            self.lane(endpoint.id).last_fault = _reason(result)
        else:
            self._learn(endpoint, result)
        return exchange

    async def ask(self, endpoint: Endpoint, url: str) -> Exchange:
        """One signed question (GET) that is not recorded."""
        headers = self._headers(endpoint, httpx.URL(url).raw_path, "", 1)
        exchange = await self._link.exchange("GET", url, headers=headers)
        answered = isinstance(exchange, Answered) and exchange.status < _SERVER_ERROR
        self._learn(endpoint, Accepted() if answered else _result(exchange))
        return exchange

    async def confirm(self, delivery: Delivery) -> None:
        """The endpoint says by another way that it took a message. Raises StoreError."""
        detail = "found to be in force when it was asked"
        await self._log.ended(delivery, DeliveryStatus.ACCEPTED, detail=detail, latency_s=None)

    async def _attempt(
        self, delivery: Delivery, *, over: Callable[[], bool], urgent: bool
    ) -> Exchange:
        endpoint = delivery.endpoint
        lane = self.lane(endpoint.id)
        async with AsyncExitStack() as held:
            if not urgent:
                await held.enter_async_context(lane.room)
                room = self._commands if delivery.kind in COMMANDS else self._notices
                await held.enter_async_context(room)
                if over():  # while it waited for room
                    return NotSent(_LATE)
                if not lane.breaker.admits(self._monotonic()):
                    return NotSent(f"the endpoint is marked broken: {lane.last_fault}")
            attempt = await self._log.attempting(delivery)
            headers = self._headers(endpoint, attempt.body, delivery.id, attempt.number)
            exchange = await self._link.exchange(
                "POST", endpoint.url, headers=headers, body=attempt.body
            )
        self._learn(endpoint, _result(exchange))
        return exchange

    def _headers(
        self, endpoint: Endpoint, signed: bytes, delivery_id: str, number: int
    ) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            SIGNATURE: sign(signed, endpoint.secrets, int(self._unix())),
            DELIVERY: delivery_id,
            ATTEMPT: str(number),
        }

    def _learn(self, endpoint: Endpoint, result: Delivered) -> None:
        """Count an attempt, and mend or wear the breaker by it."""
        lane = self.lane(endpoint.id)
        self._count(_STATUS[type(result)].value)
        if isinstance(result, Accepted | Declined):
            lane.breaker.succeeded()
            lane.heard_at, lane.last_fault = self._monotonic(), ""
            return
        lane.last_fault = result.reason
        _log.info("webhook_attempt_failed", endpoint=endpoint.id, reason=result.reason)
        if lane.breaker.failed(self._monotonic()):
            self._count("broken")
            _log.warning("webhook_broken", endpoint=endpoint.id, reason=result.reason)

    async def _back_off(self, trial: int, until: float) -> None:
        """Full jitter: a wait drawn from 0 to a bound that doubles, never past `until`."""
        longest = self._policy.backoff_s * 2 ** (trial - 1)
        wait = min(self._jitter() * longest, until - self._monotonic())
        await asyncio.sleep(max(0.0, wait))


def _result(exchange: Exchange) -> Delivered:
    return exchange if isinstance(exchange, NotSent) else _reply(exchange)


def _reply(exchange: Answered | NoAnswer) -> Reply:
    if isinstance(exchange, NoAnswer):
        return Unclear(exchange.reason)
    return read_reply(exchange.status, exchange.body)


def _reason(result: Declined | NotSent | Unclear) -> str:
    if isinstance(result, Declined):
        return f"{result.reason} ({result.evidence})"
    return result.reason
