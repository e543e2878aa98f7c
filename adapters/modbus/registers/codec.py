"""Registers of a point to its value and back. No I/O.

The protocol sends each register with its higher byte first and says nothing of values that
take several: their order, and where a maker swaps the bytes as well, is the point's own.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final

from adapters.modbus.registers.definition import FORMATS, DevicePoint, RegisterError

Value = float | int | str | None
_FLOATS: Final = ("float32", "float64")
_CODES: Final = ("bitfield16", "bitfield32", "enum16")
"""Types that are no quantity: they are never scaled."""
_NEAR: Final = 1e-9


def decode(point: DevicePoint, registers: Sequence[int]) -> Value:
    """The value in the point's unit; None = not available.

    Raises:
        RegisterError: there are more or fewer registers than the point has.
    """
    if len(registers) != point.size:
        raise RegisterError(f"{len(registers)} registers for a {point.type} of {point.size}")
    data = _ordered(point, struct.pack(f">{point.size}H", *registers))
    if point.type == "string":
        return data.split(b"\0", 1)[0].decode("utf-8", errors="replace").strip() or None
    (raw,) = struct.unpack(">" + FORMATS[point.type], data)
    if raw in point.missing or (isinstance(raw, float) and not math.isfinite(raw)):
        return None
    return _scaled(point, raw)


def encode(point: DevicePoint, value: float) -> list[int]:
    """The registers of a number in the point's unit, rounded to what they can hold.

    Raises:
        RegisterError: they cannot hold it, or it would read as "not available".
    """
    form = FORMATS.get(point.type)
    plain = point.type in _CODES or (point.scale == 1.0 and not point.offset)
    raw = value if plain else (value - point.offset) / point.scale
    if form is None or not math.isfinite(raw):  # a huge value divided by its scale is no number
        raise RegisterError(f"a {point.type} at {point.address} cannot hold {value!r}")
    number: float | int = raw if point.type in _FLOATS else round(raw)
    try:
        data = struct.pack(">" + form, number)
    except (struct.error, OverflowError) as error:
        raise RegisterError(
            f"a {point.type} at {point.address} cannot hold {value:g} {point.unit}".rstrip()
        ) from error
    if number in point.missing:
        raise RegisterError(f"{value:g} at {point.address} would mean 'not available'")
    return list(struct.unpack(f">{point.size}H", _ordered(point, data)))


def meaning(point: DevicePoint, value: Value) -> tuple[str, ...]:
    """Name of an enumeration's value, or names of the bits that are set."""
    if not isinstance(value, int) or not point.meanings:
        return ()
    if point.type.startswith("bitfield"):
        return tuple(name for bit, name in point.meanings.items() if value >> bit & 1)
    return (point.meanings[value],) if value in point.meanings else ()


def step(point: DevicePoint) -> float:
    """Between two values that the point can hold, in its unit; 0.0 of a float."""
    return 0.0 if point.type in _FLOATS else point.scale


def _ordered(point: DevicePoint, data: bytes) -> bytes:
    """Bytes as the protocol has them, from the point's own order or to it: it is its own inverse.

    Characters of a string come in the order of their registers, whatever that of words.
    """
    words = [data[at : at + 2] for at in range(0, len(data), 2)]
    if point.byte_order == "little":
        words = [word[::-1] for word in words]
    if point.word_order == "little" and point.type != "string":
        words.reverse()
    return b"".join(words)


def _scaled(point: DevicePoint, raw: float) -> float:
    if point.type in _CODES or (point.scale == 1.0 and not point.offset):
        return raw
    parts = round(1.0 / point.scale) if point.scale < 1.0 else 0
    # 3 at 0.1 is 0.3: dividing by ten is exact where multiplying by a tenth is not.
    exact = parts and abs(parts * point.scale - 1.0) < _NEAR
    number = raw / parts if exact else raw * point.scale
    return number + point.offset if point.offset else number
