"""Registers to values and back, no I/O.

Sentinels, scale factors and types follow the SunSpec Device Information Model
Specification, section "Point Types". Values are scaled exactly: an integer whose exponent is
not negative stays an integer.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final

from adapters.modbus.sunspec.definition import Model, Point, SunSpecError, Value
from adapters.modbus.sunspec.layout import form_of, layout

SCALES: Final = range(-10, 11)
"""Scale factors outside are invalid (SunSpec: -10 to 10)."""
_TEN: Final = tuple(int(10**n) for n in range(11))
_HIGH_BITS: Final = {"bitfield16": 1 << 15, "bitfield32": 1 << 31, "bitfield64": 1 << 63}
"""With its highest bit set, the other bits of a bit field mean nothing (same section)."""


def decode(model: Model, registers: Sequence[int]) -> dict[str, Value]:
    """Points by name, scaled; None = not implemented, or its scale factor is invalid.

    `registers` are those of one read: a value and its scale factor belong together. They start
    at the model's header and may end early: what is missing is left out. Points of groups that
    repeat are numbered from 1, as `module[2].DCW`. Padding is no value.
    """
    shape = layout(model, registers)
    held = registers[: shape.size]
    fields = shape.packed.unpack(struct.pack(f">{len(held)}H", *held))
    values = {
        name: plain(kind, sentinel, field)
        for (name, kind, sentinel), field in zip(shape.fields, fields, strict=True)
    }
    raw = dict(values)
    for name, scale in shape.scaled:
        number = raw[name]
        if isinstance(number, int | float):
            values[name] = scaled(number, raw.get(scale) if isinstance(scale, str) else scale)
    return values


def decode_raw(point: Point, words: Sequence[int]) -> Value:
    """One point without its scale factor; None when it holds its sentinel."""
    data = struct.pack(f">{len(words)}H", *words)
    if point.type == "string":
        return plain(point.type, None, data)
    form = form_of(point.type)
    return None if form is None else plain(point.type, form[1], *struct.unpack(">" + form[0], data))


def encode(model: Model, name: str, value: float | str, scale: int | None = None) -> list[int]:
    """Registers of one point; SunSpecError when it cannot hold the value.

    `name` may be numbered or not. `scale` is the exponent that the device shows for the point
    now.
    """
    point = model.point(name)
    if scale is not None and scale not in SCALES:
        raise SunSpecError(f"{name} of model {model.id}: {scale} is no scale factor")
    if point.type == "string":
        data = _text(model, point, value)
    else:
        data = _number(model, point, value, scale)
    return list(struct.unpack(f">{point.size}H", data))


def scale_of(model: Model, name: str, registers: Sequence[int]) -> int | None:
    """Exponent that a device shows for a point; SunSpecError when it is invalid."""
    points = layout(model, registers).points
    point = points.get(name)
    if point is None:
        model.point(name)  # says so when there is none of that name at all
        raise SunSpecError(f"{name} lies beyond the end of the device's model {model.id}")
    if point.scale is None or isinstance(point.scale, int):
        return point.scale
    held = points.get(point.scale)
    raw = None if held is None else decode_raw(held, registers[held.offset : held.offset + 1])
    if not isinstance(raw, int) or raw not in SCALES:
        raise SunSpecError(f"{point.scale} of model {model.id} is no scale factor")
    return raw


def meaning(point: Point, value: Value) -> tuple[str, ...]:
    """Names of an enumeration's value, or of the bits that are set; the nameless are left out."""
    if not isinstance(value, int) or not point.symbols:
        return ()
    if point.type.startswith("bitfield"):
        return tuple(name for bit, name in point.symbols.items() if value >> bit & 1)
    return (point.symbols[value],) if value in point.symbols else ()


def plain(kind: str, sentinel: int | None, field: float | bytes) -> Value:
    """A field of a type as a value, not scaled yet; None where it means that there is none."""
    if isinstance(field, bytes):
        return field.split(b"\0", 1)[0].decode("utf-8", errors="replace").strip() or None
    if field == sentinel or (kind.startswith("float") and not math.isfinite(field)):
        return None
    if kind in _HIGH_BITS and int(field) >= _HIGH_BITS[kind]:
        return None
    return field


def scaled(number: float, exponent: Value) -> float | None:
    """A number times ten to that power, exactly; None where it is no scale factor."""
    if not isinstance(exponent, int) or exponent not in SCALES:
        return None
    return number * _TEN[exponent] if exponent >= 0 else number / _TEN[-exponent]


def _text(model: Model, point: Point, value: float | str) -> bytes:
    if not isinstance(value, str):
        raise SunSpecError(f"{point.name} of model {model.id} is text, not {value!r}")
    data = value.encode()
    if len(data) > 2 * point.size or "\0" in value:
        raise SunSpecError(
            f"{point.name} of model {model.id} holds {2 * point.size} bytes of text without NUL"
        )
    return data.ljust(2 * point.size, b"\0")


def _number(model: Model, point: Point, value: float | str, scale: int | None) -> bytes:
    where, form = f"{point.name} of model {model.id}", form_of(point.type)
    if form is None or isinstance(value, str) or not math.isfinite(value):
        raise SunSpecError(f"{where} ({point.type}) cannot hold {value!r}")
    number: float | int = value
    if form[0] not in {"f", "d"}:
        number = _unscaled(value, scale or 0)
    try:
        data = struct.pack(">" + form[0], number)
    except (struct.error, OverflowError) as error:
        raise SunSpecError(f"{where} cannot hold {value}") from error
    if (number == form[1] and number != 0) or number >= _HIGH_BITS.get(point.type, math.inf):
        raise SunSpecError(f"{where}: {value} means 'not implemented'")
    return data


def _unscaled(value: float, scale: int) -> int:
    if scale < 0:
        return round(value * _TEN[-scale])
    if isinstance(value, int):  # division would lose what a double does not hold
        whole, rest = divmod(value, _TEN[scale])
        return whole + round(rest / _TEN[scale]) if rest else whole
    return round(value / _TEN[scale])
