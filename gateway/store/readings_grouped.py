"""What readings stores share: group commit, duplicates and gaps by sequence marks."""

from __future__ import annotations

import abc
import asyncio
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import numpy as np

from gateway.store.engine import from_us, to_us
from gateway.store.group_commit import GroupCommit, Waiting
from gateway.store.readings import NEWEST, Gaps, Quarantined, SeriesData
from gateway.store.sequence import Key, Mark, SequenceMarks
from marketplace_core.errors import FencedError, StoreError
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

DAY_US: Final = 86_400_000_000
_GROUP: Final = 512
"""Most batches that share one commit."""
_MAX_EVIDENCE: Final = 4096
"""Bytes of a malformed message that are kept."""

Row = tuple[int, int, float, float, float | None, bool, float | None, float | None]
"""at_us, series number, seconds, power_kw, soc_kwh, available, sample_kw, register_kwh."""
MarkRow = tuple[int, int, int, int, int]
"""Series number, boot, newest, base, lost: a `Mark` without its holes."""
HoleRow = tuple[int, int, int, int]
"""Series number, boot, first and last missing number."""


class Known(msgspec.Struct, frozen=True):
    """What a store remembers of the series it holds."""

    numbers: dict[str, int]
    marks: list[MarkRow]
    holes: list[HoleRow]
    """In order."""


class Group(msgspec.Struct, frozen=True):
    """What one commit writes."""

    fresh: list[Reading]
    """The readings themselves, of which `rows` tell."""
    rows: list[Row]
    marks: list[MarkRow]
    mended: list[Key]
    """Boots whose holes are other ones now: what was kept of them goes."""
    holes: list[HoleRow]
    """Their holes now."""
    messages: list[Quarantined]


class _Batch(Waiting[list[Reading]]):
    def __init__(self, readings: Sequence[Reading], message: Quarantined | None) -> None:
        super().__init__()
        self.readings = readings
        self.message = message


class GroupedReadings(abc.ABC):
    """Implements the Readings port over one database; a subclass knows its SQL."""

    failures: tuple[type[Exception], ...]
    """What the database raises."""

    def __init__(self, *, name: str, inline: bool) -> None:
        """Inline, `store` commits in the calling coroutine, without a thread."""
        self._numbers: dict[str, int] = {}
        self._marks = SequenceMarks()
        self._current = False
        self._told: dict[str, int] | None = None
        self._group: GroupCommit[_Batch] = GroupCommit(
            self._commit, _finish, name=name, most=_GROUP, close=self._close, inline=inline
        )

    @property
    def waiting(self) -> int:
        """Batches that wait for their commit."""
        return self._group.waiting

    @property
    def alive(self) -> bool:
        """Whether readings that are handed in are committed."""
        return self._group.alive

    def start(self) -> None:
        """Begin to take readings."""
        self._group.start()
        # What is missing is known from the start on, not only from the first reading.
        first = _Batch((), None)
        first.future.add_done_callback(_heard)
        self._group.submit(first)

    def stop(self) -> None:
        """Commit what is queued, then end."""
        self._group.stop()

    async def store(self, readings: Sequence[Reading]) -> list[Reading]:
        """Commit readings; return those that were new, once they are durable.

        Raises:
            StoreError: they are not stored (or nobody knows); nothing may be acknowledged.
        """
        for reading in readings:
            if not math.isfinite(reading.power_kw):
                raise StoreError(f"{reading.series}: a reading of {reading.power_kw} kW")
        return await self._submit(_Batch(readings, None))

    async def quarantine(self, message: Quarantined) -> None:
        """Keep a malformed message for inspection."""
        await self._submit(_Batch((), message))

    def gaps(self) -> Gaps:
        """Readings that are missing, and what was found missing or came late since the start."""
        marks, missing = self._marks, self._marks.missing
        if self._told is not None:
            return Gaps(missing=self._told, opened=marks.opened, closed=marks.closed)
        names = {number: name for name, number in self._numbers.copy().items()} if missing else {}
        return Gaps(
            missing={names[number]: count for number, count in missing.items()},
            opened=marks.opened, closed=marks.closed,
        )  # fmt: skip

    def heed(self, missing: dict[str, int]) -> None:
        """Believe other processes, which store the readings, about what is missing."""
        self._told = missing

    @abc.abstractmethod
    def quarantined(self, limit: int = 100, before: int = NEWEST) -> list[Quarantined]:
        """The newest messages put aside, of those before a number."""

    @abc.abstractmethod
    def between(self, series: str, start: datetime, end: datetime) -> SeriesData:
        """Readings of a series that touch `[start, end)` and began at most a day before it."""

    @abc.abstractmethod
    def stored(self, keys: Sequence[tuple[str, datetime]]) -> set[tuple[str, datetime]]:
        """Those of some series and starts that have a reading."""

    @abc.abstractmethod
    def latest(self) -> list[Reading]:
        """The newest reading of every series: what is known of devices after a restart."""

    @abc.abstractmethod
    def _begin(self) -> None:
        """Begin a transaction that writes; connect first where there is no connection."""

    @abc.abstractmethod
    def _load(self) -> Known:
        """Everything remembered of series, within the transaction."""

    @abc.abstractmethod
    def _register(self, names: Sequence[str]) -> dict[str, int]:
        """Numbers for series that are new to this process, within the transaction."""

    @abc.abstractmethod
    def _write(self, group: Group) -> None:
        """Write within the transaction; a reading whose (start, series) is there is left out."""

    @abc.abstractmethod
    def _end(self) -> None:
        """Commit, durably."""

    @abc.abstractmethod
    def _abandon(self) -> None:
        """Undo the transaction, or give the connection up; never raises."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Close the connection that writes."""

    async def _submit(self, batch: _Batch) -> list[Reading]:
        self._group.submit(batch)
        return await batch.future

    def _commit(self, batches: list[_Batch]) -> None:
        found = self._marks.opened, self._marks.closed
        try:
            self._begin()
            if not self._current:
                self._reload()
            self._write(self._sift(batches))
            self._end()
        except FencedError as error:  # for good: nothing may be stored by this process any more
            self._abandon()
            for batch in batches:
                batch.error = error
        except self.failures as error:
            # Memory may be ahead of the database now: it is read again before the next commit.
            self._current = False
            self._marks.opened, self._marks.closed = found
            self._abandon()
            for batch in batches:
                batch.error = StoreError(f"readings could not be stored: {error}")

    def _reload(self) -> None:
        known, before = self._load(), self._marks
        marks = SequenceMarks()
        marks.opened, marks.closed = before.opened, before.closed
        holes: dict[Key, list[tuple[int, int]]] = {}
        for series, boot, first, last in known.holes:
            holes.setdefault((series, boot), []).append((first, last))
        for series, boot, newest, base, lost in known.marks:
            marks.load(series, boot, Mark(newest, base, lost, holes.get((series, boot), [])))
        self._numbers, self._marks = known.numbers, marks
        self._current = True

    def _sift(self, batches: Sequence[_Batch]) -> Group:
        """Number the series, leave out what was seen, and say what there is to write."""
        names = dict.fromkeys(r.series for batch in batches for r in batch.readings)
        if unknown := [name for name in names if name not in self._numbers]:
            self._numbers.update(self._register(unknown))
        rows: list[Row] = []
        touched: dict[Key, list[tuple[int, int]]] = {}
        for batch in batches:
            batch.result = []
            for reading in batch.readings:
                number = self._numbers[reading.series]
                key = (number, reading.boot)
                if reading.sequence >= 0 and key not in touched:
                    touched[key] = self._marks.holes(*key)
                if self._marks.seen(number, reading.boot, reading.sequence):
                    continue
                batch.result.append(reading)
                rows.append(_row(reading, number))
        messages = [_cut(batch.message) for batch in batches if batch.message is not None]
        fresh = [reading for batch in batches for reading in batch.result]
        return self._group_of(fresh, rows, touched, messages)

    def _group_of(
        self,
        fresh: list[Reading],
        rows: list[Row],
        touched: dict[Key, list[tuple[int, int]]],
        messages: list[Quarantined],
    ) -> Group:
        marks = {key: self._marks.mark(*key) for key in touched}
        mended = [key for key, before in touched.items() if marks[key].holes != before]
        return Group(
            fresh=fresh,
            rows=rows,
            marks=[(*key, each.newest, each.base, each.lost) for key, each in marks.items()],
            mended=mended,
            holes=[(*key, *hole) for key in mended for hole in marks[key].holes],
            messages=messages,
        )


def _heard(future: asyncio.Future[list[Reading]]) -> None:
    """A start without the database is tried again by whoever stores first."""
    if not future.cancelled():
        future.exception()


def _finish(batches: list[_Batch]) -> None:
    for batch in batches:
        batch.resolve()


def _row(reading: Reading, number: int) -> Row:
    return (
        to_us(reading.start), number, reading.seconds, reading.power_kw, reading.soc_kwh,
        reading.available, reading.sample_kw, reading.register_kwh,
    )  # fmt: skip


def _cut(message: Quarantined) -> Quarantined:
    return msgspec.structs.replace(message, evidence=message.evidence[:_MAX_EVIDENCE])


def to_series(rows: Iterable[Sequence[float]], start: datetime) -> SeriesData:
    """Rows of `(at_us, seconds, power_kw)`, but for those that end at or before `start`."""
    table = np.array(list(rows), dtype=np.float64).reshape(-1, 3)
    table[:, 0] /= 1e6
    table = table[table[:, 0] + table[:, 1] > start.timestamp()]
    return SeriesData(table[:, 0], table[:, 1], table[:, 2])


def to_reading(row: Sequence[Any]) -> Reading:
    """A row of `(name, *Row)` without the series number, as the reading it was."""
    name, at_us, seconds, power_kw, soc_kwh, available, sample_kw, register_kwh = row
    return Reading(
        series=name, start=from_us(at_us), seconds=seconds, power_kw=Kw(power_kw),
        soc_kwh=soc_kwh, available=bool(available),
        sample_kw=None if sample_kw is None else Kw(sample_kw), register_kwh=register_kwh,
    )  # fmt: skip
