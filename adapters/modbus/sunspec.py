"""SunSpec information models: registers to values and back, no I/O.

Model definitions are the public JSON files that the package pysunspec2 carries (data of
the SunSpec Alliance); only fixed-length points are read, blocks that repeat are left out.
Sentinels, scale factors and types follow the SunSpec Device Information Model
Specification, section "Point Types".
"""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import msgspec

from marketplace_core.errors import FlexwayError

MARKER: Final = (0x5375, 0x6E53)
"""'SunS', the two registers at a base address."""
BASES: Final = (40000, 50000, 0)
"""Base addresses in the order they are tried."""
END_MODEL: Final = 0xFFFF
HEADER: Final = 2
"""Registers of a model's id and length."""
Value = float | int | str | None

_FORMATS: Final[Mapping[str, tuple[str, int | None]]] = {
    # type: (struct format, value that means "not implemented")
    "int16": (">h", -0x8000),
    "uint16": (">H", 0xFFFF),
    "count": (">H", 0xFFFF),
    "acc16": (">H", 0),
    "enum16": (">H", 0xFFFF),
    "bitfield16": (">H", 0xFFFF),
    "raw16": (">H", None),
    "pad": (">H", None),
    "sunssf": (">h", -0x8000),
    "int32": (">i", -0x8000_0000),
    "uint32": (">I", 0xFFFF_FFFF),
    "acc32": (">I", 0),
    "enum32": (">I", 0xFFFF_FFFF),
    "bitfield32": (">I", 0xFFFF_FFFF),
    "ipaddr": (">I", 0),
    "int64": (">q", -0x8000_0000_0000_0000),
    "uint64": (">Q", 0xFFFF_FFFF_FFFF_FFFF),
    "acc64": (">Q", 0),
    "bitfield64": (">Q", 0xFFFF_FFFF_FFFF_FFFF),
    "float32": (">f", None),
    "float64": (">d", None),
}
_SCALES: Final = range(-10, 11)
"""Scale factors outside are invalid (SunSpec: -10 to 10)."""


class SunSpecError(FlexwayError):
    """Registers that are no SunSpec, or a value that a point cannot hold."""


class Point(msgspec.Struct, frozen=True):
    """One point of a model."""

    name: str
    type: str
    offset: int
    """Registers from the start of the model, its header included."""
    size: int
    """Registers."""
    scale: str | int | None
    """Name of the point that holds the scale factor, a constant exponent, or None."""


class Model(msgspec.Struct, frozen=True):
    """One information model."""

    id: int
    points: dict[str, Point]
    length: int
    """Registers, header included."""


@functools.cache
def load_model(number: int) -> Model:
    """The definition of a model; SunSpecError when there is none."""
    resource = files("sunspec2") / "models" / "json" / f"model_{number}.json"
    if not resource.is_file():
        raise SunSpecError(f"SunSpec defines no model {number}")
    group = json.loads(resource.read_text(encoding="utf-8"))["group"]
    points: dict[str, Point] = {}
    length = _flatten(group, "", 0, points)
    return Model(number, points, length)


def decode(model: Model, registers: Sequence[int]) -> dict[str, Value]:
    """Points by name, scaled; None = not implemented, or its scale factor is invalid.

    `registers` start at the model's header and may end early: what is missing is left out.
    """
    values: dict[str, Value] = {}
    for point in model.points.values():
        if point.offset + point.size <= len(registers):
            words = registers[point.offset : point.offset + point.size]
            raw = decode_raw(point, words)
            values[point.name] = _scaled(model, point, raw, registers)
    return values


def decode_raw(point: Point, words: Sequence[int]) -> Value:
    """One point without its scale factor; None when it holds its sentinel."""
    data = struct.pack(f">{len(words)}H", *words)
    if point.type == "string":
        return data.split(b"\0", 1)[0].decode("utf-8", errors="replace").strip() or None
    if point.type not in _FORMATS:
        return None
    form, sentinel = _FORMATS[point.type]
    number: float | int = struct.unpack(form, data)[0]
    if number == sentinel or (isinstance(number, float) and math.isnan(number)):
        return None
    return number


def encode(model: Model, name: str, value: float | str, scale: int | None = None) -> list[int]:
    """Registers of one point; SunSpecError when it cannot hold the value.

    `scale` is the exponent that the device shows for the point now.
    """
    point = model.points[name]
    if isinstance(value, str):
        data = value.encode().ljust(point.size * 2, b"\0")[: point.size * 2]
        return list(struct.unpack(f">{point.size}H", data))
    form, sentinel = _FORMATS[point.type]
    number: float | int = value
    if form not in {">f", ">d"}:
        number = round(value / 10.0 ** (scale or 0))
    try:
        data = struct.pack(form, number)
    except struct.error as error:
        raise SunSpecError(f"{name} of model {model.id} cannot hold {value}") from error
    if number == sentinel and sentinel != 0:
        raise SunSpecError(f"{name} of model {model.id}: {value} means 'not implemented'")
    return list(struct.unpack(f">{point.size}H", data))


def scale_of(model: Model, name: str, registers: Sequence[int]) -> int | None:
    """Exponent that a device shows for a point; SunSpecError when it is invalid."""
    scale = model.points[name].scale
    if scale is None or isinstance(scale, int):
        return scale
    exponent = _exponent(model, scale, registers)
    if exponent is None:
        raise SunSpecError(f"{scale} of model {model.id} is no scale factor")
    return exponent


def _scaled(model: Model, point: Point, raw: Value, registers: Sequence[int]) -> Value:
    if raw is None or isinstance(raw, str) or point.scale is None:
        return raw
    exponent: int | None
    if isinstance(point.scale, int):
        exponent = point.scale
    else:
        exponent = _exponent(model, point.scale, registers)
    return None if exponent is None else raw * 10.0**exponent


def _exponent(model: Model, name: str, registers: Sequence[int]) -> int | None:
    point = model.points.get(name)
    if point is None or point.offset >= len(registers):
        return None
    raw = decode_raw(point, registers[point.offset : point.offset + 1])
    return raw if isinstance(raw, int) and raw in _SCALES else None


def _flatten(group: Mapping[str, Any], prefix: str, offset: int, points: dict[str, Point]) -> int:
    for entry in group.get("points", ()):
        name = prefix + entry["name"]
        points[name] = Point(name, entry["type"], offset, entry["size"], entry.get("sf"))
        offset += entry["size"]
    for inner in group.get("groups", ()):
        if inner.get("count", 1) == 1:
            offset = _flatten(inner, f"{prefix}{inner['name']}.", offset, points)
    return offset
