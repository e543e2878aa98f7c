"""Holds flags against the faults that were injected: which were flagged, and how soon.

How soon is counted here, from the truth and from what the report says of setpoints and
readings; what a flag says of itself does not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from firmware_sim.scenario import Scenario
from firmware_sim.world import Fault
from marketplace_core.intervals import instant
from marketplace_core.verification.flags import FlagKind

GRACE = timedelta(minutes=10)
"""A flag still counts as long after its fault ended."""
_USUAL_S: Final = 60.0
"""Telemetry interval of a device that has no profile."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWS_UNDER: Final = {
    FlagKind.IGNORES: "in_force_at",
    FlagKind.CLAMPS: "in_force_at",
    FlagKind.OPTS_OUT: "issued_at",
}
"""Faults that nobody can see before the device was told something: the instant that counts."""
_MEASURED: Final = frozenset({FlagKind.IGNORES, FlagKind.CLAMPS})
"""Faults that only whole telemetry intervals can show."""
Json = Mapping[str, Any]


class Happened(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fault that was injected, or a flag that was raised."""

    device: str
    fault: str
    at: datetime
    until: datetime | None = None
    visible_from: datetime | None = None
    """When it could first be seen."""
    flagged_at: datetime | None = None
    """Of the first flag."""
    after_intervals: float | None = None
    """Telemetry intervals from `visible_from` to `flagged_at`; None when nobody flagged it."""


Matched = tuple[tuple[Happened, ...], tuple[Happened, ...]]


def match(scenario: Scenario, faults: Sequence[Fault], report: Json) -> Matched:
    """Every fault with its first flag, and the flags that fit no fault."""
    flags = [
        Happened(device=each["device"], fault=each["kind"], at=instant(each["at"]))
        for each in report["flags"]
    ]
    intervals = {one.device_id: one.telemetry_s for one in scenario.profiles}
    injected = tuple(
        _injected(fault, flags, report, intervals.get(fault.device, _USUAL_S)) for fault in faults
    )
    alarms = tuple(one for one in flags if not any(_fits(one, fault) for fault in faults))
    return injected, alarms


def visible_from(fault: Fault, report: Json, interval_s: float) -> datetime:
    """When a fault can first be seen.

    What ignores or clamps can be told from what nobody called only from when a setpoint is
    in force, and a telemetry interval that began before that holds some of the time before:
    so it is the start of the first interval that lies wholly after fault and setpoint. The
    device's intervals are counted from its first reading under the setpoint, so a reading
    that is missing later, or a setpoint told late, puts this off by less than one interval.
    An owner can decline from when the setpoint was issued; everything else shows at once.
    """
    told = _told(fault, report)
    since = max([fault.at, *([instant(told[_SHOWS_UNDER[fault.kind]])] if told else [])])
    if fault.kind not in _MEASURED:
        return since
    first = told.get("first_reading_at") if told else None
    anchor = _EPOCH if first is None else instant(first)
    whole = math.ceil((since - anchor).total_seconds() / interval_s)
    return anchor + timedelta(seconds=whole * interval_s)


def _told(fault: Fault, report: Json) -> Json | None:
    """What the report says of the first order under which a device shows its fault."""
    key = _SHOWS_UNDER.get(fault.kind)
    ends = {each["id"]: instant(each["end"]) for each in report["orders"] if "end" in each}
    rows = [
        one
        for one in report.get("devices", ())
        if key and one["device"] == fault.device and one.get(key)
        and instant(one[key]) < fault.until and fault.at < ends[one["order"]]
    ]  # fmt: skip
    return min(rows, key=lambda one: instant(one[key or ""]), default=None)


def _injected(fault: Fault, flags: Sequence[Happened], report: Json, interval_s: float) -> Happened:
    bare = Happened(device=fault.device, fault=fault.kind.value, at=fault.at, until=fault.until)
    flagged = min((one.at for one in flags if _fits(one, fault)), default=None)
    if flagged is None:
        return bare
    seen = visible_from(fault, report, interval_s)
    late = (flagged - seen).total_seconds() / interval_s
    return msgspec.structs.replace(
        bare, visible_from=seen, flagged_at=flagged, after_intervals=round(late, 2)
    )


def _fits(flag: Happened, fault: Fault) -> bool:
    same = (flag.device, flag.fault) == (fault.device, fault.kind.value)
    return same and fault.at <= flag.at <= fault.until + GRACE
