"""Where each point of a model stands in a device: groups that repeat are laid out by count."""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from adapters.modbus.sunspec.definition import (
    MOST_REGISTERS,
    Group,
    Model,
    Point,
    load_model,
    scale_name,
)

_FORMATS: Final[Mapping[str, tuple[str, int | None]]] = {
    # type: (struct format, value that means "not implemented")
    "int16": ("h", -0x8000),
    "uint16": ("H", 0xFFFF),
    "count": ("H", 0xFFFF),
    "acc16": ("H", 0),
    "enum16": ("H", 0xFFFF),
    "bitfield16": ("H", 0xFFFF),
    "raw16": ("H", None),
    "sunssf": ("h", -0x8000),
    "int32": ("i", -0x8000_0000),
    "uint32": ("I", 0xFFFF_FFFF),
    "acc32": ("I", 0),
    "enum32": ("I", 0xFFFF_FFFF),
    "bitfield32": ("I", 0xFFFF_FFFF),
    "ipaddr": ("I", 0),
    "int64": ("q", -0x8000_0000_0000_0000),
    "uint64": ("Q", 0xFFFF_FFFF_FFFF_FFFF),
    "acc64": ("Q", 0),
    "bitfield64": ("Q", 0xFFFF_FFFF_FFFF_FFFF),
    "float32": ("f", None),
    "float64": ("d", None),
}


class Layout(msgspec.Struct, frozen=True):
    """The points of one device's model that its registers hold, and how to unpack them."""

    points: dict[str, Point]
    """By name, numbered, in the order of their registers; `offset` counts from the header."""
    size: int
    """Registers they take."""
    packed: struct.Struct
    """Unpacks the registers into one field per entry of `fields`."""
    fields: tuple[tuple[str, str, int | None], ...]
    """(name, type, sentinel) of what `packed` yields."""
    scaled: tuple[tuple[str, str | int], ...]
    """(name, scale factor's name or constant) of the points that have a scale factor."""


def form_of(point_type: str) -> tuple[str, int | None] | None:
    """Struct format and sentinel of a type of numbers; None for strings, pads and addresses."""
    return _FORMATS.get(point_type)


def layout(model: Model, registers: Sequence[int]) -> Layout:
    """How a device lays a model out, from the registers themselves (from the header on).

    A count that is not implemented means as many as fit. What would lie beyond the
    registers is left out: an older revision of a model is shorter than its definition. What
    lies beyond the definition is a newer revision's, and left alone; so is what lies beyond
    MOST_REGISTERS.
    """
    room = min(len(registers), MOST_REGISTERS)
    return _layout(model.id, room, _counts(model, registers, room))


def _counts(model: Model, registers: Sequence[int], room: int) -> tuple[tuple[str, int], ...]:
    """Points that say how often a group repeats, as the device shows them."""
    found: list[tuple[str, int]] = []
    for name in _count_names(model.id):
        point = model.points[name]
        if point.offset < room:
            shown = registers[point.offset]
            if shown != _FORMATS[point.type][1]:
                # More than there are registers fits nowhere: it is the same layout.
                found.append((name, min(shown, room)))
    return tuple(found)


@functools.cache
def _count_names(number: int) -> tuple[str, ...]:
    names: dict[str, None] = {}

    def collect(group: Group) -> None:
        if isinstance(group.count, str):
            names[group.count] = None
        for inner in group.groups:
            collect(inner)

    collect(load_model(number).root)
    return tuple(names)


@functools.lru_cache(maxsize=256)
def _layout(number: int, available: int, counts: tuple[tuple[str, int], ...]) -> Layout:
    """Laid out once per model, length and counts: a device is asked each second."""
    model = load_model(number)
    walk = _Walk(available, dict(counts))
    walk.group(model.root, "", ())
    forms: list[str] = []
    fields: list[tuple[str, str, int | None]] = []
    for point in walk.points.values():
        form = _FORMATS.get(point.type)
        if point.type == "string":
            forms.append(f"{2 * point.size}s")
        elif form is None:
            forms.append(f"{2 * point.size}x")
            continue
        else:
            forms.append(form[0])
        fields.append((point.name, point.type, None if form is None else form[1]))
    return Layout(
        points=walk.points,
        size=walk.offset,
        packed=struct.Struct(">" + "".join(forms)),
        fields=tuple(fields),
        scaled=tuple((p.name, p.scale) for p in walk.points.values() if p.scale is not None),
    )


class _Walk:
    """Goes through the groups of a model, register by register."""

    def __init__(self, available: int, counts: Mapping[str, int]) -> None:
        self.points: dict[str, Point] = {}
        self.offset = 0
        self._available = available
        self._counts = counts
        self._full = False

    def group(
        self, group: Group, prefix: str, scopes: tuple[tuple[str, frozenset[str]], ...]
    ) -> None:
        """One instance: its points, then its inner groups."""
        scopes = ((prefix, frozenset(point.name for point in group.points)), *scopes)
        for point in group.points:
            self._full = self._full or self.offset + point.size > self._available
            if self._full:
                return
            name = prefix + point.name
            self.points[name] = msgspec.structs.replace(
                point, name=name, offset=self.offset, scale=scale_name(point.scale, scopes)
            )
            self.offset += point.size
        for inner in group.groups:
            self._repeat(inner, prefix, scopes)

    def _repeat(
        self, group: Group, prefix: str, scopes: tuple[tuple[str, frozenset[str]], ...]
    ) -> None:
        if group.count == 1:
            self.group(group, f"{prefix}{group.name}.", scopes)
            return
        count = self._counts.get(group.count) if isinstance(group.count, str) else group.count
        whole = count is None or group.count == 0
        number = 0
        while not self._full and (whole or number < (count or 0)):
            before, kept = self.offset, len(self.points)
            number += 1
            self.group(group, f"{prefix}{group.name}[{number}].", scopes)
            if whole and self._full:  # a part of an instance is none: it is something else
                for name in list(self.points)[kept:]:
                    del self.points[name]
                self.offset = before
            if self.offset == before:
                return
