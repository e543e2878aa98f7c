"""What a device's reports say of a command. Pure.

Sparkplug has no acknowledgement: a device that obeys reports the metrics that were written
to it with their new values. What it reports in place of them is its refusal.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from adapters.mqtt.sparkplug_binding import Reported, Role

_EXACT: Final = 1e-6
"""What a float of 32 bits may be aside, absolute and of the value."""


class Before(msgspec.Struct, frozen=True):
    """What was reported when a command went out."""

    values: Mapping[Role, float | None]
    reports: Mapping[Role, int]


def before(reported: Reported) -> Before:
    """Hold on to what is reported now."""
    return Before(dict(reported.values), dict(reported.reports))


class Verdict(enum.Enum):
    """How a command stands."""

    MATCHES = "matches"
    """Everything that was written reads back."""
    CONTRADICTED = "contradicted"
    """The setpoint changed to something else: clamped, or somebody else's."""
    OPEN = "open"


def verdict(
    expected: Mapping[Role, float], was: Before, reported: Reported, *, tolerance_kw: float
) -> tuple[Verdict, str]:
    """How a command stands, and the roles that do not read back as they should.

    A device reports by exception, so what already stood as it is wanted needs no new report.
    A report of the old value may have crossed the command on its way: it decides nothing yet.
    """
    amiss: list[str] = []
    contradicted = False
    for role, wanted in expected.items():
        value = reported.values.get(role)
        near = max(tolerance_kw if role == "setpoint" else _EXACT, _EXACT * abs(wanted))
        if value is not None and abs(value - wanted) <= near:
            continue
        amiss.append(f"{role} is {_shown(value)}, not {wanted:g}")
        contradicted |= role == "setpoint" and value != was.values.get(role)
    if not amiss:
        return Verdict.MATCHES, ""
    return (Verdict.CONTRADICTED if contradicted else Verdict.OPEN), "; ".join(amiss)


def answered(expected: Mapping[Role, float], was: Before, reported: Reported) -> bool:
    """Whether any of the metrics that were written was reported since."""
    return any(reported.reports.get(role, 0) > was.reports.get(role, 0) for role in expected)


def disturbed(was: Before, reported: Reported) -> bool:
    """Whether the setpoint, or what puts it in force, is not as it was before a command."""
    roles: tuple[Role, ...] = ("setpoint", "enable")
    return any(reported.values.get(role) != was.values.get(role) for role in roles)


def in_force(
    reported: Reported, *, fallback_kw: float | None, tolerance_kw: float
) -> tuple[bool, float | None]:
    """Whether a setpoint is in force by a device's own words, and its kilowatts."""
    power_kw, enabled = reported.values.get("setpoint"), reported.values.get("enable")
    if enabled is not None:
        return enabled != 0.0, power_kw
    resting = fallback_kw is not None and power_kw is not None
    at_rest = resting and abs((power_kw or 0.0) - (fallback_kw or 0.0)) <= tolerance_kw
    return power_kw is not None and not at_rest, power_kw


def _shown(value: float | None) -> str:
    return "not known" if value is None else f"{value + 0.0:g}"
