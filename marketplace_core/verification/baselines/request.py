"""What a baseline method is asked, and what a method is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.provenance import Rule
from marketplace_core.results import BaselineResult
from marketplace_core.verification.windows import PowerHistory


class BaselineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One event of one portfolio."""

    event: Interval
    grid: SettlementGrid
    history: PowerHistory
    """Portfolio power, days before the event and the day itself."""
    excluded_days: frozenset[str]
    """ISO dates, local to the market, with an event or an outage."""
    holidays: frozenset[str]
    """ISO dates that count as weekend."""
    notified_at: datetime | None
    """When the seller learnt of the event; None where it is not known."""
    rebound: timedelta = timedelta(0)
    """How long after the event the baseline goes on, so that the rebound can be measured."""

    def periods(self) -> list[datetime]:
        """Starts of the settlement periods of the event, and of what is watched after it."""
        span = Interval(self.event.start, self.event.end + self.rebound)
        return [period.start for period in self.grid.periods(span)]

    def window(self, from_hours: float, to_hours: float) -> list[datetime]:
        """Starts of the periods from so many hours to so many hours before the event."""
        start = self.event.start
        span = Interval(start - timedelta(hours=from_hours), start - timedelta(hours=to_hours))
        return [period.start for period in self.grid.periods(span)]

    def days_before(self, starts: Sequence[datetime], days: int) -> list[datetime]:
        """The same local wall times some days earlier."""
        return [self.grid.days_before(start, days) for start in starts]

    def known_before(self, to_hours: float) -> bool:
        """Whether the seller knew of the event before a window ended so many hours ahead of it."""
        end = self.event.start - timedelta(hours=to_hours)
        return self.notified_at is not None and self.notified_at < end


class BaselineMethod(Protocol):
    """A method and the rule set it applies."""

    @property
    def rule(self) -> Rule:
        """The named, dated rule set."""

    def compute(self, request: BaselineRequest) -> BaselineResult:
        """Mean power of every settlement period of the event, or the reason for refusing."""
