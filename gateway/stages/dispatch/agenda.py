"""Open setpoints, and when each of them has to be looked at next. No I/O.

Deadlines lie on two clocks that may move against each other: validity is market time, leases
are monotonic wall time. Each has a heap; an entry that an earlier one replaced, or whose
setpoint is gone, is passed over when it comes up.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Generic, TypeVar

from gateway.stages.dispatch.held import Held

Instant = TypeVar("Instant", datetime, float)


class Agenda:
    """Held setpoints by id and by device, and which of them are due."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._of_device: dict[str, list[Held]] = defaultdict(list)
        self._market = _Heap[datetime]()
        self._wall = _Heap[float]()
        self._added = 0

    def add(self, held: Held) -> None:
        """Take a setpoint over; one that is here already stays as it is."""
        if held.setpoint.id in self._held:
            return
        held.number = self._added = self._added + 1
        self._held[held.setpoint.id] = held
        self._of_device[held.setpoint.device_id].append(held)
        self.look(held)

    def remove(self, held: Held) -> None:
        """Give a setpoint up; harmless when it is gone."""
        if self._held.get(held.setpoint.id) is not held:
            return
        del self._held[held.setpoint.id]
        device_id = held.setpoint.device_id
        left = [each for each in self._of_device[device_id] if each is not held]
        if left:
            self._of_device[device_id] = left
        else:
            del self._of_device[device_id]

    def every(self) -> list[Held]:
        """All of them, in the order they came; may be called from any thread."""
        return list(self._held.values())

    def among(self, setpoint_ids: Iterable[str]) -> list[Held]:
        """Those with these ids, as far as they are here."""
        return [self._held[each] for each in setpoint_ids if each in self._held]

    def of_device(self, device_id: str) -> Collection[Held]:
        """Every setpoint of one device."""
        return self._of_device.get(device_id, ())

    def look(self, held: Held) -> None:
        """Note when a setpoint is to be looked at next; while it is busy nobody has to."""
        if held.busy or self._held.get(held.setpoint.id) is not held:
            return
        at = held.next_market
        if held.market_entry is None or at < held.market_entry:
            held.market_entry = at
            self._market.push(at, held)
        retry_at = held.next_wall
        if retry_at is not None and (held.wall_entry is None or retry_at < held.wall_entry):
            held.wall_entry = retry_at
            self._wall.push(retry_at, held)

    def due(self, now: datetime, monotonic: float) -> list[Held]:
        """Setpoints whose time to be looked at has come, in the order they were taken over.

        Who is left waiting has to be handed to `look` again.
        """
        found: dict[int, Held] = {}
        for at, held in self._market.until(now):
            if held.market_entry == at:
                held.market_entry = None
                found[held.number] = held
        for retry_at, held in self._wall.until(monotonic):
            if held.wall_entry == retry_at:
                held.wall_entry = None
                found[held.number] = held
        here = self._held
        return [
            found[number] for number in sorted(found)
            if here.get(found[number].setpoint.id) is found[number]
        ]  # fmt: skip

    @property
    def next_market(self) -> datetime | None:
        """Market time of the next look."""
        return self._market.first

    @property
    def next_wall(self) -> float | None:
        """Monotonic time of the next look."""
        return self._wall.first


class _Heap(Generic[Instant]):
    def __init__(self) -> None:
        self._entries: list[tuple[Instant, int, Held]] = []
        self._pushed = 0

    @property
    def first(self) -> Instant | None:
        return self._entries[0][0] if self._entries else None

    def push(self, at: Instant, held: Held) -> None:
        self._pushed += 1
        heapq.heappush(self._entries, (at, self._pushed, held))

    def until(self, now: Instant) -> Iterable[tuple[Instant, Held]]:
        while self._entries and self._entries[0][0] <= now:
            at, _, held = heapq.heappop(self._entries)
            yield at, held
