"""Mean of like days, scaled by how the day itself began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from marketplace_core.provenance import Confidence, Rule, Source
from marketplace_core.results import BaselineRefused, BaselineResult, BaselineValue
from marketplace_core.units import Kw
from marketplace_core.verification.baselines.request import BaselineRequest

_SATURDAY: Final = 5


class LikeDaysRule(Rule, frozen=True, kw_only=True):
    """Parameters of a mean over like days with a ratio adjustment."""

    days: int
    """Like days that are averaged; fewer are refused."""
    look_back_days: int
    window_from_hours: float
    """The adjustment window begins so many hours before the event ..."""
    window_to_hours: float
    """... and ends so many hours before it."""
    cap: float
    """The ratio stays within 1 - cap .. 1 + cap."""
    min_coverage: float
    """Least coverage (0..1) of every period that is used of a day."""
    floor_share: float
    """A ratio needs consumption above this share of the baseline's own, on both days."""


CAISO_10_OF_10: Final = LikeDaysRule(
    id="caiso_10_of_10",
    title="Ten most recent like days without event, adjusted by the morning of the day",
    sources=(
        Source(
            states="ten like days within 45, cap of 20 %",
            work="Nexant, California ISO baseline accuracy assessment, draft",
            as_of="2017",
            confidence=Confidence.READ,
        ),
        Source(
            states="adjustment window from 4 h to 2 h before the start",
            work="SLAC, study of PG&E customers",
            as_of="2026-11",
            confidence=Confidence.READ,
        ),
        Source(
            states="coverage of a day, floor of the ratio",
            work="Flexway",
            as_of="2026-11",
            confidence=Confidence.OWN,
        ),
    ),
    days=10,
    look_back_days=45,
    window_from_hours=4.0,
    window_to_hours=2.0,
    cap=0.2,
    min_coverage=0.9,
    floor_share=0.1,
)


class _Found(NamedTuple):
    days: list[str]
    event_kw: npt.NDArray[np.float64]
    """Mean power of each period of the event and of its rebound, shape (periods,)."""
    periods: int
    """How many of them belong to the event."""
    window_kw: float
    """Mean power in the adjustment window."""


@dataclass(frozen=True)
class LikeDays:
    """A method of the family; the rule makes it a published one."""

    rule: LikeDaysRule

    def compute(self, request: BaselineRequest) -> BaselineResult:
        """Mean of the like days times the adjustment; refused when there are too few days."""
        found = self._collect(request)
        if isinstance(found, BaselineRefused):
            return found
        ratio, note = self._adjustment(request, found)
        return BaselineValue(
            kw=tuple(Kw(kw) for kw in (found.event_kw * ratio).tolist()),
            days=tuple(found.days),
            adjustment=ratio,
            note=note,
        )

    def _collect(self, request: BaselineRequest) -> _Found | BaselineRefused:
        rule = self.rule
        periods = request.periods()
        window = request.window(rule.window_from_hours, rule.window_to_hours)
        days: list[str] = []
        rows = []
        uncovered = 0
        for back in range(1, rule.look_back_days + 1):
            starts = request.days_before([*window, *periods], back)
            if not self._is_like(request, starts[len(window) :]):
                continue
            kw, coverage = request.history.at(starts)
            if coverage.min() < rule.min_coverage:
                uncovered += 1
                continue
            days.append(request.grid.local_date(starts[len(window)]))
            rows.append(kw)
            if len(days) == rule.days:
                mean = np.mean(rows, axis=0)
                return _Found(
                    days, mean[len(window) :], len(list(request.grid.periods(request.event))),
                    float(mean[: len(window)].mean()),
                )  # fmt: skip
        return BaselineRefused(
            reason=f"{rule.id} needs {rule.days} like days without event within"
            f" {rule.look_back_days} days and found {len(days)};"
            f" {uncovered} more lack readings"
        )

    def _is_like(self, request: BaselineRequest, starts: Sequence[datetime]) -> bool:
        """Whether a day is of the event's kind, over before it, and free of events."""
        if starts[-1] + request.grid.length > request.event.start:
            return False
        dates = {request.grid.local_date(start) for start in starts}
        if dates & request.excluded_days:
            return False
        own = request.grid.local_date(request.event.start)
        theirs = request.grid.local_date(starts[0])
        return _is_weekend(own, request.holidays) == _is_weekend(theirs, request.holidays)

    def _adjustment(self, request: BaselineRequest, found: _Found) -> tuple[float, str]:
        """The capped ratio of the day's consumption to that of the like days, and a caveat.

        Power is injection positive, so consumption is its negative. A ratio of numbers
        near zero, or of an export to an import, says nothing: it is refused.
        """
        rule = self.rule
        kw, coverage = request.history.at(
            request.window(rule.window_from_hours, rule.window_to_hours)
        )
        consumed = -float(kw.mean())
        usual = -found.window_kw
        usual_in_event = -float(found.event_kw[: found.periods].mean())
        floor = rule.floor_share * abs(usual_in_event)
        if request.known_before(rule.window_to_hours):
            return 1.0, "not adjusted: the adjustment window ends after the notification"
        if coverage.min() < rule.min_coverage:
            return 1.0, "not adjusted: readings are missing in the adjustment window"
        if min(usual, consumed) <= floor or usual_in_event <= 0:
            return 1.0, (
                f"not adjusted: consumption in the adjustment window ({consumed:.3f} kW,"
                f" usually {usual:.3f} kW) does not exceed the floor of {floor:.3f} kW"
                f" for a ratio to {usual_in_event:.3f} kW"
            )
        ratio = consumed / usual
        capped = min(max(ratio, 1.0 - rule.cap), 1.0 + rule.cap)
        note = "" if capped == ratio else f"the ratio {ratio:.3f} was capped to {capped:.3f}"
        return capped, note


def _is_weekend(iso_date: str, holidays: frozenset[str]) -> bool:
    return iso_date in holidays or date.fromisoformat(iso_date).weekday() >= _SATURDAY
