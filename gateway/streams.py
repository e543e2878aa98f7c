"""Live streams of orders: each message is serialised once, whoever listens.

A subscriber has a bounded queue. One that does not keep up is told so and dropped: it
never holds up the others, nor the service.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from marketplace_core.events import OrderFact, OrderPlanned
from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.ports import Clock, Record
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

_EVERY_S = 1.0
"""Shortest wall time between two messages of measured power about one order."""

_SHORTEST = timedelta(milliseconds=1)
"""A reading of no length is a sample: it counts for this long."""


class Measured(msgspec.Struct, frozen=True, kw_only=True, tag="measured", tag_field="type"):
    """Power of an order's devices in one settlement period, as far as it has been heard."""

    order_id: str
    period_start: datetime
    measured_kw: Kw
    """Sum over the devices of their mean power so far, injection positive."""
    devices: int
    """Devices that the sum is over."""
    of_devices: int
    """Devices that the order drives."""


class Happened(msgspec.Struct, frozen=True, kw_only=True, tag="fact", tag_field="type"):
    """One fact of the order as it stands in the journal."""

    order_id: str
    record: Record


class Subscriber:
    """What one reader has not taken yet."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: deque[bytes] = deque()
        self._event = asyncio.Event()
        self.dropped = asyncio.Event()
        """Set when it fell behind: nothing follows any more."""

    def offer(self, message: bytes) -> bool:
        """Queue a message; False when the queue is full and the subscriber is dropped."""
        if self.dropped.is_set():
            return False
        if len(self._messages) >= self._limit:
            self._messages.clear()
            self.dropped.set()
            return False
        self._messages.append(message)
        self._event.set()
        return True

    async def take(self) -> bytes:
        """The next message."""
        while not self._messages:
            self._event.clear()
            await self._event.wait()
        return self._messages.popleft()


class _Power:
    """Energy of one series in one settlement period."""

    def __init__(self) -> None:
        self.kw_seconds = 0.0
        self.seconds = 0.0


class _Topic:
    """One order that somebody listens to."""

    def __init__(self, span: Interval) -> None:
        self.span = span
        self.subscribers: set[Subscriber] = set()
        self.devices: set[str] = set()
        self.periods: dict[datetime, dict[str, _Power]] = {}
        self.changed: set[datetime] = set()
        self.sent_at = float("-inf")


class OrderStreams:
    """Fans facts and readings out to who listens to their order."""

    def __init__(
        self, clock: Clock, grid: SettlementGrid, *, queue: int, dropped: Callable[[], None]
    ) -> None:
        """`queue`: most messages that wait for one subscriber; `dropped` counts who lost them."""
        self._clock = clock
        self._grid = grid
        self._queue = queue
        self._dropped = dropped
        self._topics: dict[str, _Topic] = {}

    def subscribe(self, order_id: str, span: Interval) -> Subscriber:
        """Listen to an order from now on.

        Of its devices' power only what lies within `span`, the order's, is told: before and
        after it they are their seller's alone.
        """
        topic = self._topics.setdefault(order_id, _Topic(span))
        subscriber = Subscriber(self._queue)
        topic.subscribers.add(subscriber)
        return subscriber

    def drives(self, order_id: str, devices: Iterable[str]) -> None:
        """Say which devices an order was planned onto before anybody listened to it."""
        if topic := self._topics.get(order_id):
            topic.devices |= set(devices)

    def unsubscribe(self, order_id: str, subscriber: Subscriber) -> None:
        """Listen no longer."""
        topic = self._topics.get(order_id)
        if topic is None:
            return
        topic.subscribers.discard(subscriber)
        if not topic.subscribers:
            del self._topics[order_id]

    def heard(self, records: list[Record]) -> None:
        """Take committed facts."""
        for record in records if self._topics else ():
            fact = record.fact
            if not isinstance(fact, OrderFact) or fact.order_id not in self._topics:
                continue
            topic = self._topics[fact.order_id]
            if isinstance(fact, OrderPlanned):
                topic.devices |= {each.device_id for each in fact.allocations}
            self._send(topic, Happened(order_id=fact.order_id, record=record))

    def stored(self, readings: Sequence[Reading]) -> None:
        """Take committed readings."""
        for order_id, topic in self._topics.items():
            for reading in readings:
                if reading.series in topic.devices:
                    self._add(topic, reading)
            if topic.changed and self._clock.monotonic() - topic.sent_at >= _EVERY_S:
                topic.sent_at = self._clock.monotonic()
                self._send_power(order_id, topic)

    def _add(self, topic: _Topic, reading: Reading) -> None:
        whole = Interval(reading.start, max(reading.end, reading.start + _SHORTEST))
        span = topic.span.overlap(whole)
        if span is None:
            return
        for period in self._grid.periods(span):
            common = span.overlap(period)
            if common is None:
                continue
            seconds = common.duration / timedelta(seconds=1)
            known = topic.periods.setdefault(period.start, {})
            power = known.setdefault(reading.series, _Power())
            power.kw_seconds += reading.power_kw * seconds
            power.seconds += seconds
            topic.changed.add(period.start)

    def _send_power(self, order_id: str, topic: _Topic) -> None:
        for start in sorted(topic.changed):
            heard = topic.periods[start].values()
            message = Measured(
                order_id=order_id, period_start=start, devices=len(heard),
                of_devices=len(topic.devices),
                measured_kw=Kw(sum(power.kw_seconds / power.seconds for power in heard)),
            )  # fmt: skip
            self._send(topic, message)
        topic.changed.clear()
        newest = max(topic.periods)
        for start in [each for each in topic.periods if each < newest - self._grid.length]:
            del topic.periods[start]

    def _send(self, topic: _Topic, message: Happened | Measured) -> None:
        data = msgspec.json.encode(message)
        for subscriber in list(topic.subscribers):
            if not subscriber.offer(data):
                topic.subscribers.discard(subscriber)
                self._dropped()
