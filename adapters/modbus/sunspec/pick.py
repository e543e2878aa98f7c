"""A few points out of the registers of one read or several: worked out once, decoded often. No I/O.

What comes out is what `decode` says of the same registers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from adapters.modbus.sunspec.codec import plain, scaled
from adapters.modbus.sunspec.definition import Point, Value
from adapters.modbus.sunspec.layout import form_of

_WHOLE: Final = ("int", "uint", "acc", "enum", "count", "sunssf", "raw")
"""Types whose every number but the sentinel is a value."""


class Place(msgspec.Struct, frozen=True):
    """Where a point stands in what was read."""

    name: str
    point: Point | None
    """None: the device's revision of the model does not have it."""
    at: int = 0
    """Bytes from the start of what was read."""
    scale: int | None = None
    """A constant exponent."""
    scale_at: int | None = None
    """Where the exponent stands, where a point holds it."""


class Picker:
    """Decodes points at places that do not move."""

    def __init__(self, places: Sequence[Place]) -> None:
        forms: dict[int, str] = {}
        for place in places:
            if place.point is not None:
                forms[place.at] = _form(place.point)
            if place.scale_at is not None:
                forms[place.scale_at] = "h"
        index = {at: number for number, at in enumerate(sorted(forms))}
        self._unpack = struct.Struct(">" + _spread(forms)).unpack_from
        self._absent = tuple(place.name for place in places if place.point is None)
        self._rows = tuple(
            (
                place.name, index[place.at], _sentinel(place.point), _special(place.point),
                place.point.scale is not None, place.scale,
                -1 if place.scale_at is None else index[place.scale_at],
            )
            for place in places
            if place.point is not None
        )  # fmt: skip

    def values(self, data: bytes) -> dict[str, Value]:
        """Points by name, scaled; None = not implemented, or its scale factor is invalid."""
        fields = self._unpack(data)
        values: dict[str, Value] = dict.fromkeys(self._absent)
        for name, index, sentinel, special, has_scale, exponent, scale_index in self._rows:
            value = fields[index]
            if special is not None:
                value = plain(special, sentinel, value)
            elif value == sentinel:
                value = None
            if has_scale and value is not None:
                power = fields[scale_index] if scale_index >= 0 else exponent
                if power != 0:
                    value = scaled(value, power)
            values[name] = value
        return values


def _special(point: Point) -> str | None:
    """The type, where more than its sentinel says that there is no value."""
    return None if point.type.startswith(_WHOLE) else point.type


def _form(point: Point) -> str:
    form = form_of(point.type)
    return f"{2 * point.size}s" if form is None else form[0]


def _sentinel(point: Point) -> int | None:
    form = form_of(point.type)
    return None if form is None else form[1]


def _spread(forms: dict[int, str]) -> str:
    """Formats of the fields, with what nobody wants between them left out."""
    spread, end = list[str](), 0
    for at, form in sorted(forms.items()):
        spread.append(f"{at - end}x{form}")
        end = at + struct.calcsize(">" + form)
    return "".join(spread)
