"""What the parts of a device profile have to be with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from config.control_rules import control_findings
from config.findings import Finding, Location
from config.profile_model import ControlEntry, PointEntry, ProfileDocument
from config.schema import nearest

Rule = Callable[[ProfileDocument], Iterator[Finding]]
SIZES: Final = {
    "uint16": 1, "int16": 1, "uint32": 2, "int32": 2, "uint64": 4, "int64": 4, "float32": 2,
    "float64": 4, "bitfield16": 1, "bitfield32": 2, "enum16": 1,
}  # fmt: skip
"""Registers of each type; a string says its own."""
_POWER: Final = ("W", "kW")
_ENERGY: Final = ("Wh", "kWh")
_REGISTERS: Final = 0x1_0000
_NAMING: Final = {
    "value": ("point", "full"), "direction": ("point",), "enable": ("point",),
    "lease": ("point", "remaining"),
}  # fmt: skip
"""Keys of a control's parts that name points."""


def broken_rules(profile: ProfileDocument) -> list[Finding]:
    """Everything that does not go together."""
    return [finding for rule in _RULES for finding in rule(profile)]


def size_of(entry: PointEntry) -> int:
    """Registers that a value takes."""
    return SIZES.get(entry.type, entry.length)


def _places(profile: ProfileDocument) -> Iterator[Finding]:
    for name, entry in profile.points.items():
        at: Location = ("points", name)
        yield from _length(entry, at)
        last = entry.address + size_of(entry) - 1
        if last >= _REGISTERS:
            yield Finding(
                location=(*at, "address"), message=f"{last} is beyond the last register",
                remedy="addresses go from 0 to 65535, as on the wire",
            )  # fmt: skip
        if size_of(entry) > profile.max_registers:
            yield Finding(
                location=(*at, "length" if entry.type == "string" else "type"),
                message=f"{size_of(entry)} registers do not come in one read of "
                f"{profile.max_registers}",
                remedy="leave the point out, or correct max_registers",
            )  # fmt: skip
        for first, end in profile.unreadable:
            if entry.address <= end and first <= last:
                yield Finding(
                    location=(*at, "address"),
                    message=f"it lies in {first} to {end}, which is unreadable",
                    remedy="correct the one or the other",
                )


def _length(entry: PointEntry, at: Location) -> Iterator[Finding]:
    if entry.type == "string" and not entry.length:
        yield Finding(
            location=(*at, "length"), message="a string without length",
            remedy="give its registers: two characters each",
        )  # fmt: skip
    elif entry.type != "string" and entry.length not in {0, size_of(entry)}:
        yield Finding(
            location=(*at, "length"),
            message=f"a {entry.type} has {size_of(entry)} registers, not {entry.length}",
            remedy="take the line away, or correct the type",
        )


def _ranges(profile: ProfileDocument) -> Iterator[Finding]:
    for number, (first, last) in enumerate(profile.unreadable):
        if first > last:
            yield Finding(
                location=("unreadable", number), message=f"{first} to {last} is no range",
                remedy="write [first, last]",
            )  # fmt: skip


def _documents(profile: ProfileDocument) -> Iterator[Finding]:
    for name, entry in profile.points.items():
        if entry.document and entry.document not in profile.documents:
            yield Finding(
                location=("points", name, "document"), message=f"no document {entry.document!r}",
                remedy=nearest(entry.document, profile.documents),
            )  # fmt: skip


def _references(profile: ProfileDocument) -> Iterator[Finding]:
    """Every name of a point is one."""
    for location, name in referred(profile):
        if name not in profile.points:
            yield Finding(
                location=location, message=f"no point {name!r}",
                remedy=nearest(name, profile.points),
            )  # fmt: skip


def referred(profile: ProfileDocument) -> Iterator[tuple[Location, str]]:
    """Where a point is named, and its name."""
    identity, measured = profile.identity, profile.measurements
    if identity.serial is not None:
        yield ("identity", "serial"), identity.serial
    for number, expected in enumerate(identity.expect):
        yield ("identity", "expect", number, "point"), expected.point
    for number, name in enumerate(measured.power.points):
        yield ("measurements", "power", "points", number), name
    for key in ("soc", "capacity", "energy_import", "energy_export"):
        name = getattr(measured, key)
        if name is not None:
            yield ("measurements", key), name
    for control, entry in profile.controls.items():
        for location, name in _named(entry):
            yield ("controls", control, *location), name


def _named(control: ControlEntry) -> Iterator[tuple[Location, str]]:
    for part, keys in _NAMING.items():
        told = getattr(control, part)
        for key in keys if told is not None else ():
            if (name := getattr(told, key)) is not None:
                yield (part, key), name
    for number, write in enumerate(control.release):
        yield ("release", number, "point"), write.point
        if write.copy_of is not None:
            yield ("release", number, "copy_of"), write.copy_of


def _units(profile: ProfileDocument) -> Iterator[Finding]:
    """What is measured is in a unit of it."""
    measured = profile.measurements
    wanted: list[tuple[Location, str | None, tuple[str, ...]]] = [
        (("measurements", "power", "points", number), name, _POWER)
        for number, name in enumerate(measured.power.points)
    ]
    wanted += [
        (("measurements", "soc"), measured.soc, ("%",)),
        (("measurements", "capacity"), measured.capacity, _ENERGY),
        (("measurements", "energy_import"), measured.energy_import, _ENERGY),
        (("measurements", "energy_export"), measured.energy_export, _ENERGY),
    ]
    for location, name, units in wanted:
        entry = profile.points.get(name) if name is not None else None
        if entry is not None and (entry.unit not in units or entry.type == "string"):
            yield Finding(
                location=location,
                message=f"{name} is a {entry.type} in {entry.unit or 'no unit'}",
                remedy=f"it has to be a number in {' or '.join(units)}: give the point its unit",
            )


def _identity(profile: ProfileDocument) -> Iterator[Finding]:
    for number, expected in enumerate(profile.identity.expect):
        entry = profile.points.get(expected.point)
        if entry is not None and entry.type in {"string", "float32", "float64"}:
            yield Finding(
                location=("identity", "expect", number, "point"),
                message=f"{expected.point} is a {entry.type}",
                remedy="a whole number is compared: name a point with a code of the model",
            )


def _driven(profile: ProfileDocument) -> Iterator[Finding]:
    if not profile.controls:
        return
    if profile.role == "meter":
        yield Finding(
            location=("controls",), message="a meter is not driven",
            remedy="take the controls away, or correct the role",
        )  # fmt: skip
    if profile.flash_wear is None:
        yield Finding(
            location=("controls",), message="flash_wear is missing",
            remedy="say how many writes a day the device's memory takes, and where that stands",
        )  # fmt: skip
    for name, control in profile.controls.items():
        yield from control_findings(profile, control, ("controls", name))


_RULES: tuple[Rule, ...] = (
    _references, _places, _ranges, _documents, _units, _identity, _driven,
)  # fmt: skip
