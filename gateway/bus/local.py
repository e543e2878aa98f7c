"""The in-process bus: bounded queues of committed records, one per subscriber.

A subscriber that falls behind loses its queue, not its facts: it is told that it
lagged and reads on from the journal.
"""

from __future__ import annotations

import asyncio
from collections import deque

from marketplace_core.ports import Record


class Subscription:
    """The records a subscriber has not taken yet."""

    def __init__(self, limit: int) -> None:
        """`limit` is the most records that wait."""
        self._limit = limit
        self._records: deque[Record] = deque()
        self._lagged = False
        self._event = asyncio.Event()

    def offer(self, records: list[Record]) -> None:
        """Queue records, or note that the subscriber lags."""
        if len(self._records) + len(records) > self._limit:
            self.lag()
        elif not self._lagged:
            self._records.extend(records)
            self._event.set()

    def lag(self) -> None:
        """Records may be missing: what is queued is dropped, the journal has it."""
        self._records.clear()
        self._lagged = True
        self._event.set()

    async def take(self) -> list[Record] | None:
        """All queued records; None when the subscriber lagged and must read the journal."""
        await self._event.wait()
        self._event.clear()
        lagged, self._lagged = self._lagged, False
        records = list(self._records)
        self._records.clear()
        return None if lagged else records

    def acknowledge(self) -> None:
        """What was taken is gone from the queue: nothing to do."""


class LocalBus:
    """Hands committed records to every subscriber of this process."""

    def __init__(self, limit: int = 10_000) -> None:
        """`limit` is the most records that wait for one subscriber."""
        self._limit = limit
        self._subscriptions: list[Subscription] = []

    def subscribe(self, group: str) -> Subscription:  # noqa: ARG002 - one process, one of each
        """A new subscription that sees everything published from now on."""
        subscription = Subscription(self._limit)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, records: list[Record]) -> None:
        """Offer committed records to every subscriber; never blocks."""
        for subscription in self._subscriptions:
            subscription.offer(records)

    async def run(self) -> None:
        """Nothing to do: publishing delivers."""

    async def close(self) -> None:
        """Nothing to close."""
