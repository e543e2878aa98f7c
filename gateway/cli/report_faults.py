"""What was flagged against what was done to the devices: matched, missed, false alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.cli.report_words import NONE, Json, number, seconds

MATCHED, MISSED, FALSE_ALARM, UNJUDGED = "matched", "missed", "false alarm", "not judged"
_GRACE_S = 600.0
"""A flag still belongs to its fault so long after the fault ended."""


@dataclass(frozen=True)
class Finding:
    """One fault with its first flag, or a flag without a fault; instants are Unix seconds."""

    number: int
    """Its place in time, by which plot and table name it."""
    device: str
    kind: str
    verdict: str
    injected: float | None
    until: float | None
    flagged: float | None
    after: str
    """Telemetry intervals from the fault to the flag."""
    evidence: str

    @property
    def at(self) -> float:
        """When it shows in a plot: when it was flagged, else when it began."""
        return self.flagged if self.flagged is not None else self.injected or 0.0


def findings(report: Json) -> list[Finding]:
    """Every injected fault and every flag, each once, in order of time.

    The verdict is the judge's own (section `truth`); without one nothing is judged.
    """
    truth = report.get("truth") or {}
    left = sorted(report.get("flags", ()), key=lambda flag: seconds(flag["at"]))
    found = []
    for fault in truth.get("injected", ()):
        own = [flag for flag in left if _fits(flag, fault)]
        left = [flag for flag in left if flag not in own]
        found.append(_of_fault(fault, own))
    alarms = {_key(one, "fault") for one in truth.get("false_alarms", ())}
    found += [_of_flag(flag, alarms, judged="injected" in truth) for flag in left]
    found.sort(key=lambda one: (one.at, one.device))
    return [replace(one, number=place) for place, one in enumerate(found, 1)]


def count(found: Sequence[Finding], verdict: str) -> int:
    """How many got a verdict."""
    return sum(one.verdict == verdict for one in found)


def _fits(flag: Json, fault: Json) -> bool:
    at, until = seconds(flag["at"]), fault.get("until")
    last = seconds(until) + _GRACE_S if until else float("inf")
    same = (flag["device"], flag["kind"]) == (fault["device"], fault["fault"])
    return same and seconds(fault["at"]) <= at <= last


def _of_fault(fault: Json, flags: Sequence[Json]) -> Finding:
    first = flags[0] if flags else None
    return Finding(
        number=0, device=str(fault["device"]), kind=str(fault["fault"]),
        verdict=MISSED if fault.get("after_intervals") is None else MATCHED,
        injected=seconds(fault["at"]),
        until=seconds(fault["until"]) if fault.get("until") else None,
        flagged=seconds(first["at"]) if first else None,
        after=_after(fault.get("after_intervals")),
        evidence=str(first.get("evidence", "")) if first else "",
    )  # fmt: skip


def _of_flag(flag: Json, alarms: set[tuple[str, str, float]], *, judged: bool) -> Finding:
    verdict = MATCHED if judged else UNJUDGED
    return Finding(
        number=0, device=str(flag["device"]), kind=str(flag["kind"]),
        verdict=FALSE_ALARM if _key(flag, "kind") in alarms else verdict,
        injected=None, until=None, flagged=seconds(flag["at"]),
        after=_after(flag.get("after_intervals")), evidence=str(flag.get("evidence", "")),
    )  # fmt: skip


def _key(row: Json, kind: str) -> tuple[str, str, float]:
    return str(row["device"]), str(row[kind]), seconds(row["at"])


def _after(intervals: float | None) -> str:
    return NONE if intervals is None else number(intervals)
