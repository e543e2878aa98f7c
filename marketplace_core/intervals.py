"""UTC instants, half-open intervals and the market's settlement grid.

Inside Flexway an instant is an aware `datetime` in UTC and a period is named by
its start. Local market time exists only here and at the edges.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALLOWED_MINUTES = (5, 15, 30, 60)


def instant(text: str) -> datetime:
    """Parse an ISO 8601 instant with an offset into UTC; ValueError when it has none."""
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        msg = f"{text!r} has no UTC offset: write it as 2017-07-20T17:00:00Z"
        raise ValueError(msg)
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        msg = f"{text!r} is out of reach"
        raise ValueError(msg) from error


class Interval(msgspec.Struct, frozen=True, order=True):
    """A half-open span of time `[start, end)` in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Refuse naive instants and empty spans."""
        if self.start.tzinfo is None or self.end.tzinfo is None:
            msg = "an interval needs aware instants"
            raise ValueError(msg)
        if self.end <= self.start:
            msg = f"an interval must end after it starts: {self.start} .. {self.end}"
            raise ValueError(msg)

    @property
    def duration(self) -> timedelta:
        """Length of the interval."""
        return self.end - self.start

    @property
    def hours(self) -> float:
        """Length in hours."""
        return self.duration / timedelta(hours=1)

    def contains(self, at: datetime) -> bool:
        """Whether the instant lies in the half-open interval."""
        return self.start <= at < self.end

    def overlap(self, other: Interval) -> Interval | None:
        """The common part of two intervals, or None when they do not meet."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Interval(start, end) if start < end else None


class SettlementGrid(msgspec.Struct, frozen=True):
    """The market's settlement periods: `minutes` long, counted from local midnight.

    Across a clock change the local day has 23 or 25 hours and the grid keeps its
    period length in absolute time, so energy is neither lost nor counted twice.
    """

    minutes: int
    timezone: str
    """IANA name, such as America/Los_Angeles."""

    def __post_init__(self) -> None:
        """Refuse period lengths the market does not know."""
        if self.minutes not in _ALLOWED_MINUTES:
            msg = f"settlement periods are {_ALLOWED_MINUTES} minutes long, not {self.minutes}"
            raise ValueError(msg)

    @property
    def length(self) -> timedelta:
        """Length of one settlement period."""
        return timedelta(minutes=self.minutes)

    def period_containing(self, at: datetime) -> Interval:
        """The settlement period in which an instant lies."""
        midnight = self.local_midnight(at)
        index = (at - midnight) // self.length
        start = midnight + index * self.length
        return Interval(start, start + self.length)

    def periods(self, span: Interval) -> Iterator[Interval]:
        """Every settlement period that meets `span`, in order."""
        period = self.period_containing(span.start)
        while period.start < span.end:
            yield period
            period = self.period_containing(period.end)

    def is_aligned(self, at: datetime) -> bool:
        """Whether an instant is a boundary of the grid."""
        return self.period_containing(at).start == at

    def local_midnight(self, at: datetime) -> datetime:
        """The instant at which the local day of `at` began, in UTC."""
        zone = ZoneInfo(self.timezone)
        local = at.astimezone(zone)
        return datetime(local.year, local.month, local.day, tzinfo=zone).astimezone(UTC)

    def local_date(self, at: datetime) -> str:
        """ISO date of the local day in which an instant lies."""
        return at.astimezone(ZoneInfo(self.timezone)).date().isoformat()

    def days_before(self, at: datetime, days: int) -> datetime:
        """The same local wall time `days` local days earlier, in UTC."""
        zone = ZoneInfo(self.timezone)
        local = at.astimezone(zone).replace(tzinfo=None) - timedelta(days=days)
        return local.replace(tzinfo=zone).astimezone(UTC)
