"""Baselines that need no history: the hour before, and nothing at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from marketplace_core.provenance import Confidence, Rule, Source
from marketplace_core.results import BaselineRefused, BaselineResult, BaselineValue
from marketplace_core.units import Kw
from marketplace_core.verification.baselines.request import BaselineRequest


class MeterBeforeRule(Rule, frozen=True, kw_only=True):
    """Parameters of a mean over the time just before the event."""

    hours: float
    """Length of the time before the event that is averaged."""
    min_coverage: float
    """Least coverage (0..1) of every period of it."""


METER_BEFORE_AFTER: Final = MeterBeforeRule(
    id="meter_before_after",
    title="Mean of the hour before the event",
    sources=(
        Source(
            states="the hour before minus actual; PJM itself calls it not very accurate",
            work="PJM",
            as_of="2026-11",
            confidence=Confidence.READ,
        ),
        Source(
            states="coverage of the hour",
            work="Flexway",
            as_of="2026-11",
            confidence=Confidence.OWN,
        ),
    ),
    hours=1.0,
    min_coverage=0.9,
)

ZERO: Final = Rule(
    id="zero",
    title="Nothing would have flowed",
    sources=(
        Source(
            states="baseline of technologies that rest unless called",
            work="UK distribution system operators, baselines by technology",
            as_of="2026-11",
            confidence=Confidence.READ,
        ),
    ),
)


@dataclass(frozen=True)
class MeterBefore:
    """The mean just before the event, held through it."""

    rule: MeterBeforeRule

    def compute(self, request: BaselineRequest) -> BaselineResult:
        """One number for every period; refused when the time before is not covered."""
        kw, coverage = request.history.at(request.window(self.rule.hours, 0.0))
        if coverage.min() < self.rule.min_coverage:
            return BaselineRefused(
                reason=f"{self.rule.id} needs readings of the {self.rule.hours:g} h before the"
                f" event and covers {coverage.mean():.0%} of it"
            )
        note = ""
        if request.known_before(0.0):
            note = "can be gamed: the event was notified before the averaged time had ended"
        return BaselineValue(
            kw=(Kw(float(kw.mean())),) * len(request.periods()),
            days=(request.grid.local_date(request.event.start),),
            adjustment=1.0,
            note=note,
        )


@dataclass(frozen=True)
class Zero:
    """No power at all."""

    rule: Rule

    def compute(self, request: BaselineRequest) -> BaselineResult:
        """Zero in every period; never refused."""
        return BaselineValue(kw=(Kw(0.0),) * len(request.periods()), days=(), adjustment=1.0)
