"""The events of every VEN: what each is told, and what it answered. Pure and in memory.

A distribute message always carries the full set of a VEN, because in 2.0b an event that
is missing from it is cancelled. So a cancelled event stays, with that status, until its
period is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from adapters.openadr.mapping import event_id
from adapters.openadr.state import EventRecord
from adapters.openadr.wire import Answer
from marketplace_core.dispatch.setpoint import Setpoint


class EventBook:
    """Event records by id, with the record that an undelivered one replaced."""

    def __init__(self) -> None:
        self._events: dict[str, EventRecord] = {}
        self._replaced: dict[str, EventRecord | None] = {}

    def records(self) -> tuple[EventRecord, ...]:
        """All records, in the order in which they were made."""
        return tuple(self._events.values())

    def find(self, order_id: str, device_id: str) -> EventRecord | None:
        """The event that carries an order to a device."""
        return self._events.get(event_id(order_id, device_id))

    def of(self, ven_id: str, now: datetime) -> list[EventRecord]:
        """Events of a VEN that are not over at market time `now`."""
        return [
            event
            for event in self._events.values()
            if event.ven_id == ven_id and event.setpoint.valid_until > now
        ]

    def offer(self, setpoint: Setpoint, ven_id: str, *, created: datetime) -> EventRecord:
        """Make a setpoint an event, or modify the one there is; the same id changes nothing.

        Raises:
            ValueError: the event stands for a newer revision already.
        """
        old = self.find(setpoint.order_id, setpoint.device_id)
        if old is not None and old.setpoint.revision > setpoint.revision:
            msg = f"superseded by revision {old.setpoint.revision}"
            raise ValueError(msg)
        if old is not None and old.setpoint.id == setpoint.id and not old.cancelled:
            return old
        modification = setpoint.revision if old is None else old.modification + 1
        event = EventRecord(
            ven_id=ven_id, setpoint=setpoint, modification=modification, created=created
        )
        if old is None or old.delivered:
            self._replaced[event.id] = old
        self._events[event.id] = event
        return event

    def withdraw(self, event: EventRecord) -> None:
        """Take back an event that never reached its VEN: what it replaced stands again."""
        if self._events.get(event.id) is not event or event.delivered:
            return
        old = self._replaced.pop(event.id, None)
        if old is None:
            del self._events[event.id]
        else:
            self._events[event.id] = old

    def cancel(self, event: EventRecord) -> EventRecord:
        """Mark an event cancelled: a modification that the VEN has to see."""
        cancelled = msgspec.structs.replace(
            event,
            cancelled=True,
            modification=event.modification + 1,
            opt_in=None,
            code="",
            delivered=False,
        )
        self._replaced.pop(event.id, None)
        self._events[event.id] = cancelled
        return cancelled

    def delivered(self, events: Iterable[EventRecord]) -> None:
        """Note that these may reach their VEN from now on."""
        for event in events:
            if not event.delivered and self._events.get(event.id) is event:
                self._events[event.id] = msgspec.structs.replace(event, delivered=True)
                self._replaced.pop(event.id, None)

    def answer(self, ven_id: str, answer: Answer) -> bool:
        """Note what a VEN said; False when it spoke of an event or modification we do not have."""
        event = self._events.get(answer.event_id)
        if event is None or event.ven_id != ven_id or event.modification != answer.modification:
            return False
        opt_in = answer.opt_in and answer.code.startswith("2")
        self._events[event.id] = msgspec.structs.replace(
            event, opt_in=opt_in, code=answer.code, delivered=True
        )
        self._replaced.pop(event.id, None)
        return True

    def restore(
        self,
        known: Iterable[EventRecord],
        setpoints: Sequence[Setpoint],
        *,
        ven_of: dict[str, str],
        now: datetime,
        created: datetime,
    ) -> None:
        """Reload after a restart: the setpoints are what should stand, `known` what was told.

        An event that was told and should not stand any more is cancelled, not forgotten.
        `ven_of` gives the VEN of a device; what is over at market time `now` is left out.
        """
        wanted = {setpoint.id for setpoint in setpoints}
        for event in known:
            if event.setpoint.valid_until <= now or event.ven_id not in ven_of.values():
                continue
            self._events[event.id] = event
            if event.setpoint.id not in wanted and not event.cancelled:
                self.cancel(event)
        for setpoint in setpoints:
            if setpoint.valid_until <= now or setpoint.device_id not in ven_of:
                continue
            self._restore_one(setpoint, ven_of[setpoint.device_id], created)

    def _restore_one(self, setpoint: Setpoint, ven_id: str, created: datetime) -> None:
        old = self.find(setpoint.order_id, setpoint.device_id)
        if old is not None and old.setpoint.revision > setpoint.revision:
            return
        if old is not None and old.setpoint.id == setpoint.id:
            event = old  # also when cancelled: only a new issue brings it back
        else:
            event = self.offer(setpoint, ven_id, created=created)
        # it may have reached the VEN before the restart: silence is then no proof
        self.delivered([event])

    def prune(self, now: datetime) -> None:
        """Forget what is over at market time `now`."""
        over = [key for key, event in self._events.items() if event.setpoint.valid_until <= now]
        for key in over:
            del self._events[key]
            self._replaced.pop(key, None)
