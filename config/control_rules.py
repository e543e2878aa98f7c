"""What a control of a device profile has to be: that it can be driven, seen and ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from config.findings import Finding, Location
from config.profile_model import ControlEntry, PointEntry, ProfileDocument

_POWER: Final = ("W", "kW")
_WHOLE: Final = ("string", "float32", "float64")
"""Types that hold no code of a mode."""
_WITH_A_POINT: Final = ("timer", "heartbeat")
_RESTARTS: Final[dict[str, tuple[str, ...]]] = {
    "timer": ("timer", "value", "enable"), "fixed": ("value", "enable"), "heartbeat": (),
    "none": (),
}  # fmt: skip
"""Writes that may restart each kind of lease."""
_WRITES_ONE: Final = 6
"""The function that writes one register (MODBUS Application Protocol V1.1b3, section 6.6)."""
_ONE_REGISTER: Final = ("uint16", "int16", "bitfield16", "enum16")


def control_findings(
    profile: ProfileDocument, control: ControlEntry, at: Location
) -> Iterator[Finding]:
    """Everything wrong with one control; points that do not exist are told elsewhere."""
    for location, name in _written(control, at):
        entry = profile.points.get(name)
        if entry is not None:
            yield from _writable(profile, entry, name, location)
    yield from _value(profile, control, at)
    yield from _codes(profile, control, at)
    yield from _lease(profile, control, at)
    yield from _ends(control, at)


def _written(control: ControlEntry, at: Location) -> Iterator[tuple[Location, str]]:
    yield (*at, "value", "point"), control.value.point
    if control.direction is not None:
        yield (*at, "direction", "point"), control.direction.point
    if control.enable is not None:
        yield (*at, "enable", "point"), control.enable.point
    if control.lease.point is not None:
        yield (*at, "lease", "point"), control.lease.point
    for number, write in enumerate(control.release):
        yield (*at, "release", number, "point"), write.point


def _writable(
    profile: ProfileDocument, entry: PointEntry, name: str, at: Location
) -> Iterator[Finding]:
    if entry.access != "read_write" or entry.table != "holding":
        yield Finding(
            location=at, message=f"{name} cannot be written and read back",
            remedy="it has to be a holding register with access: read_write",
        )  # fmt: skip
    if profile.write_function == _WRITES_ONE and entry.type not in _ONE_REGISTER:
        yield Finding(
            location=at, message=f"{name} ({entry.type}) takes more than function 6 writes",
            remedy="function 6 writes one register: set write_function: 16 if the device knows it",
        )  # fmt: skip


def _value(profile: ProfileDocument, control: ControlEntry, at: Location) -> Iterator[Finding]:
    value, here = control.value, (*at, "value")
    entry = profile.points.get(value.point)
    unit = entry.unit if entry is not None else "W"
    if unit not in {*_POWER, "A", "%"} or (entry is not None and entry.type == "string"):
        yield Finding(
            location=(*here, "point"), message=f"{value.point} is in {unit or 'no unit'}",
            remedy="a power is told in W, kW, A or %: give the point its unit",
        )  # fmt: skip
    if (unit == "A") != (value.volts > 0):
        yield Finding(
            location=(*here, "volts"), message=f"volts with a point in {unit or 'no unit'}"
            if value.volts else "a point in A without volts",
            remedy="volts turn amperes into watts: 230 between phase and neutral in Europe",
        )  # fmt: skip
    if (unit == "%") != (value.full is not None):
        yield Finding(
            location=(*here, "full"), message=f"full with a point in {unit or 'no unit'}"
            if value.full else "a point in % without full",
            remedy="name the register that says what 100 % is",
        )  # fmt: skip
    full = profile.points.get(value.full or "")
    if full is not None and full.unit not in _POWER:
        yield Finding(
            location=(*here, "full"), message=f"{value.full} is in {full.unit or 'no unit'}",
            remedy="100 % is a power in W or kW",
        )  # fmt: skip
    if value.most is not None and value.least > value.most:
        yield Finding(
            location=(*here, "least"), message=f"{value.least:g} is above {value.most:g}",
            remedy="least is the smallest number besides 0",
        )  # fmt: skip
    if (control.direction is not None) != value.magnitude and control.kind == "setpoint":
        yield Finding(
            location=(*here, "magnitude"),
            message="magnitude and direction go together in a setpoint",
            remedy="a number with a sign needs no direction, one without needs it",
        )


def _codes(profile: ProfileDocument, control: ControlEntry, at: Location) -> Iterator[Finding]:
    for part in ("direction", "enable"):
        told = getattr(control, part)
        entry = None if told is None else profile.points.get(told.point)
        if entry is not None and entry.type in _WHOLE:
            yield Finding(
                location=(*at, part, "point"), message=f"{told.point} is a {entry.type}",
                remedy="it takes a whole number",
            )  # fmt: skip
    direction = control.direction
    if direction is not None and direction.injects == direction.consumes:
        yield Finding(
            location=(*at, "direction", "injects"), message="the same number for both ways",
            remedy="correct the one or the other",
        )  # fmt: skip


def _lease(profile: ProfileDocument, control: ControlEntry, at: Location) -> Iterator[Finding]:
    lease, here = control.lease, (*at, "lease")
    if (lease.kind in _WITH_A_POINT) != (lease.point is not None):
        yield Finding(
            location=(*here, "point"), message=f"kind: {lease.kind} "
            + ("without a point" if lease.point is None else "with a point"),
            remedy="a timer takes seconds and a heartbeat a count; the others have no point",
        )  # fmt: skip
    timer = profile.points.get(lease.point or "")
    if lease.kind == "heartbeat" and timer is not None and timer.kept_in != "ram":
        yield Finding(
            location=(*here, "point"), message=f"{lease.point} is written each second",
            remedy="say kept_in: ram where the document does; flash would not last a year",
        )  # fmt: skip
    if lease.kind == "heartbeat" and lease.longest_s and lease.every_s * 2 > lease.longest_s:
        yield Finding(
            location=(*here, "every_s"), message=f"a beat each {lease.every_s:g} s, and the device "
            f"falls back after {lease.longest_s:g} s", remedy="beat at half that time at most",
        )  # fmt: skip
    if lease.kind == "timer" and timer is not None and timer.unit != "s":
        yield Finding(
            location=(*here, "point"),
            message=f"{lease.point} is in {timer.unit or 'no unit'}",
            remedy="give the point unit: s",
        )  # fmt: skip
    if (lease.kind == "none") == (lease.longest_s > 0):
        yield Finding(
            location=(*here, "longest_s"), message=f"kind: {lease.kind} "
            + ("without longest_s" if lease.kind != "none" else "with longest_s"),
            remedy="seconds after which the device falls back; only without a lease there are none",
        )  # fmt: skip
    yield from _restart(control, at)
    if (lease.kind == "none") != (control.fallback == "keeps"):
        yield Finding(
            location=(*at, "fallback"), message=f"fallback: {control.fallback} with lease "
            f"kind: {lease.kind}", remedy="`keeps` goes with `none`, and only with it",
        )  # fmt: skip


def _restart(control: ControlEntry, at: Location) -> Iterator[Finding]:
    """The write that restarts the lease is one that the control has."""
    restarts, kind = control.lease_restarts_on, control.lease.kind
    allowed = _RESTARTS
    if (restarts is None) != (not allowed[kind]) or (restarts and restarts not in allowed[kind]):
        yield Finding(
            location=(*at, "lease_restarts_on"),
            message=f"lease_restarts_on: {restarts or '(missing)'} with lease kind: {kind}",
            remedy=f"write one of {', '.join(allowed[kind])}" if allowed[kind]
            else "take it away: no write restarts it",
        )  # fmt: skip
    elif restarts == "enable" and control.enable is None:
        yield Finding(
            location=(*at, "lease_restarts_on"), message="the control has no enable",
            remedy="name the write that restarts the lease: timer or value",
        )  # fmt: skip


def _ends(control: ControlEntry, at: Location) -> Iterator[Finding]:
    if control.enable is None and not control.release:
        yield Finding(
            location=at, message="nothing ends it: neither enable nor release",
            remedy="say which write returns the device to its own behaviour",
        )  # fmt: skip
    for number, write in enumerate(control.release):
        if (write.value is None) == (write.copy_of is None):
            yield Finding(
                location=(*at, "release", number), message="value and copy_of",
                remedy="give one of the two",
            )  # fmt: skip
