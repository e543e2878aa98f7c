"""SunSpec information models as the SunSpec Alliance defines them.

The public JSON files (data) come with the package pysunspec2. A model is a tree of groups:
its fixed points come first, groups that repeat follow them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import msgspec

from adapters.modbus.errors import PointError

MARKER: Final = (0x5375, 0x6E53)
"""'SunS', the two registers at a base address."""
BASES: Final = (40000, 50000, 0)
"""Base addresses in the order they are tried."""
END_MODEL: Final = 0xFFFF
HEADER: Final = 2
"""Registers of a model's id and length."""
MOST_REGISTERS: Final = 4_096
"""Of one model, header included, that are read and laid out; what a unit claims beyond is left
alone. The longest that are known in the field are a few hundred."""
Value = float | int | str | None


class SunSpecError(PointError):
    """Registers that are no SunSpec, or a value that a point cannot hold."""


class NoMarkerError(SunSpecError):
    """A device that answers and shows no SunSpec map at all."""


class Point(msgspec.Struct, frozen=True):
    """One point of a model."""

    name: str
    """With the groups it stands in; those that repeat are numbered from 1: `module[2].DCW`."""
    type: str
    offset: int
    """Registers from the start of the model, its header included. In a group that repeats, and
    in `Model.points` only: registers from the start of that group's instance."""
    size: int
    """Registers."""
    scale: str | int | None
    """Name of the point that holds the scale factor, a constant exponent, or None."""
    units: str = ""
    writable: bool = False
    symbols: Mapping[int, str] = {}
    """Names of an enumeration's values, or of a bit field's bits."""
    label: str = ""


class Group(msgspec.Struct, frozen=True):
    """Points and inner groups that stand together, once or several times."""

    name: str
    points: tuple[Point, ...]
    """Named without their groups; `scale` likewise."""
    groups: tuple[Group, ...]
    count: int | str
    """How often: a number, the name of the point that says it, or 0 = as often as it fits."""


class Model(msgspec.Struct, frozen=True):
    """One information model."""

    id: int
    label: str
    points: dict[str, Point]
    """Every point by name. What stands in a group that repeats has no number in its name here
    (`module.DCW`), and no place: `layout` gives both."""
    length: int
    """Registers of the fixed part, header included."""
    root: Group

    def point(self, name: str) -> Point:
        """A point by name, numbered or not; SunSpecError when the model has none such."""
        found = self.points.get(name) or self.points.get(unnumbered(name))
        if found is None:
            raise SunSpecError(f"model {self.id} has no point {name}")
        return found


def unnumbered(name: str) -> str:
    """`module[2].DCW` -> `module.DCW`."""
    if "[" not in name:
        return name
    return ".".join(part.split("[", 1)[0] for part in name.split("."))


@functools.cache
def load_model(number: int) -> Model:
    """The definition of a model; SunSpecError when there is none."""
    resource = files("sunspec2") / "models" / "json" / f"model_{number}.json"
    if not resource.is_file():
        raise SunSpecError(f"SunSpec defines no model {number}")
    document = json.loads(resource.read_text(encoding="utf-8"))["group"]
    root = _group(document)
    points: dict[str, Point] = {}
    length = _flatten(root, "", 0, (), points)
    return Model(number, str(document.get("label", "")), points, length, root)


def defined(number: int) -> bool:
    """Whether SunSpec defines a model of this id."""
    return (files("sunspec2") / "models" / "json" / f"model_{number}.json").is_file()


def _group(document: Mapping[str, Any]) -> Group:
    return Group(
        name=document["name"],
        points=tuple(_point(entry) for entry in document.get("points", ())),
        groups=tuple(_group(entry) for entry in document.get("groups", ())),
        count=document.get("count", 1),
    )


def _point(entry: Mapping[str, Any]) -> Point:
    return Point(
        name=entry["name"], type=entry["type"], offset=0, size=entry["size"],
        scale=entry.get("sf"), units=entry.get("units", "").strip(),
        writable=entry.get("access") == "RW", label=entry.get("label", ""),
        symbols={symbol["value"]: symbol["name"] for symbol in entry.get("symbols", ())},
    )  # fmt: skip


def scale_name(
    scale: str | int | None, scopes: tuple[tuple[str, frozenset[str]], ...]
) -> str | int | None:
    """Full name of a scale factor's point: of the innermost group that has one of that name.

    `scopes`: prefix and point names of the groups around it, the innermost first.
    """
    if not isinstance(scale, str):
        return scale
    for prefix, names in scopes:
        if scale in names:
            return prefix + scale
    return scale


def _flatten(
    group: Group, prefix: str, offset: int, scopes: tuple[tuple[str, frozenset[str]], ...],
    points: dict[str, Point],
) -> int:  # fmt: skip
    """Registers of the fixed part; what repeats is named, and counted from its own start."""
    scopes = ((prefix, frozenset(point.name for point in group.points)), *scopes)
    for point in group.points:
        name = prefix + point.name
        scale = scale_name(point.scale, scopes)
        points[name] = msgspec.structs.replace(point, name=name, offset=offset, scale=scale)
        offset += point.size
    for inner in group.groups:
        path = f"{prefix}{inner.name}."
        if inner.count == 1:
            offset = _flatten(inner, path, offset, scopes, points)
        else:
            _flatten(inner, path, 0, scopes, points)
    return offset
