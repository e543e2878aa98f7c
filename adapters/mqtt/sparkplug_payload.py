"""What Sparkplug B payloads are made of: metrics, their types, and how values travel.

Eclipse Sparkplug 3.0.0, chapter 6 "Payloads".
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from adapters.mqtt.wire import WireError

MAX_SEQUENCE: Final = 255
UINT64: Final = 2**64 - 1
UINT32: Final = 2**32 - 1
INT_VALUE, LONG_VALUE, FLOAT_VALUE, DOUBLE_VALUE = 10, 11, 12, 13
"""Fields of a metric's value (section 6.4.1)."""
BOOLEAN_VALUE, STRING_VALUE, BYTES_VALUE = 14, 15, 16


class DataType(enum.IntEnum):
    """Type of a metric (section 6.4.16); its index on the wire."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    DATASET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    PROPERTY_SET = 20
    PROPERTY_SET_LIST = 21
    INT8_ARRAY = 22
    INT16_ARRAY = 23
    INT32_ARRAY = 24
    INT64_ARRAY = 25
    UINT8_ARRAY = 26
    UINT16_ARRAY = 27
    UINT32_ARRAY = 28
    UINT64_ARRAY = 29
    FLOAT_ARRAY = 30
    DOUBLE_ARRAY = 31
    BOOLEAN_ARRAY = 32
    STRING_ARRAY = 33
    DATETIME_ARRAY = 34


Value = int | float | str | bytes
"""Booleans are integers too; DateTime is milliseconds since 1970, an array its packed bytes."""

KNOWN: Final = {int(kind): kind for kind in DataType}
"""Types by their index."""
_SIGNED: Final = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}
_UNSIGNED: Final = {
    DataType.UINT8: 8, DataType.UINT16: 16, DataType.UINT32: 32, DataType.UINT64: 64,
    DataType.DATETIME: 64,
}  # fmt: skip
INTEGERS: Final = {**_SIGNED, **_UNSIGNED}
"""Integer types and their bits."""
FLOATS: Final = frozenset({DataType.FLOAT, DataType.DOUBLE})
OPAQUE: Final = frozenset({
    DataType.DATASET, DataType.TEMPLATE, DataType.PROPERTY_SET, DataType.PROPERTY_SET_LIST,
})  # fmt: skip
"""Types whose values are passed over."""
_FIELDS: Final[dict[DataType, int]] = {
    **{kind: INT_VALUE if bits <= 32 else LONG_VALUE for kind, bits in INTEGERS.items()},  # noqa: PLR2004 - bits
    DataType.FLOAT: FLOAT_VALUE,
    DataType.DOUBLE: DOUBLE_VALUE,
    DataType.BOOLEAN: BOOLEAN_VALUE,
    **dict.fromkeys((DataType.STRING, DataType.TEXT, DataType.UUID), STRING_VALUE),
    **dict.fromkeys((DataType.BYTES, DataType.FILE, *list(DataType)[22:]), BYTES_VALUE),
}
"""Field of the value's `oneof` that a type travels in."""


class Raw(msgspec.Struct, frozen=True):
    """A value whose type was said at birth: the field that it came in, and what stood there."""

    field: int
    value: Value


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of a message."""

    name: str | None = None
    alias: int | None = None
    timestamp_ms: int | None = None
    datatype: DataType | None = None
    """None where the message does not say it: then the value is `Raw`."""
    historical: bool = False
    null: bool = False
    value: Value | Raw | None = None
    """None when it is null, or of a kind that is passed over."""


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """One message."""

    timestamp_ms: int | None = None
    seq: int | None = None
    metrics: tuple[Metric, ...] = ()


def typed(raw: Raw, datatype: DataType) -> Value:
    """What a raw value means as a type; WireError when it cannot be one of it.

    Signed integers travel as two's complement in unsigned fields. Of the narrow ones some
    firmware writes only their own bits and some sign-extends to 32: both are understood.
    """
    value, field = raw.value, raw.field
    if datatype in INTEGERS and field in {INT_VALUE, LONG_VALUE}:
        width = 32 if field == INT_VALUE else 64
        return _integer(int(value), datatype, width)
    wanted = _FIELDS.get(datatype)
    if field == wanted or (datatype in FLOATS and field in {FLOAT_VALUE, DOUBLE_VALUE}):
        return value
    raise WireError(f"field {field} holds no {datatype.name}", repr(value)[:64].encode())


def _integer(value: int, datatype: DataType, width: int) -> int:
    bits = INTEGERS[datatype]
    if bits > width:
        raise WireError(f"a {datatype.name} in a 32-bit field", str(value).encode())
    if datatype in _SIGNED:
        if value >> (width - 1):  # sign-extended to the field
            value -= 1 << width
        elif bits < width and value >> (bits - 1) == 1:  # its own bits only
            value -= 1 << bits
        fits = -(1 << (bits - 1)) <= value < 1 << (bits - 1)
    else:
        fits = 0 <= value < 1 << bits
    if not fits:
        raise WireError(f"{value} is outside of {datatype.name}", str(value).encode())
    return value


def as_raw(value: Value, datatype: DataType | None) -> Raw:
    """A value as it stands on the wire, its type left to the birth; ValueError when it cannot."""
    field = None if datatype is None else _FIELDS.get(datatype)
    if datatype is None or field is None:
        raise ValueError("a value needs a type")
    bits = INTEGERS.get(datatype)
    if bits is None:
        return Raw(field, value)
    number = int(value)
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if datatype in _SIGNED else (0, 1 << bits)
    if not low <= number < high:
        raise ValueError(f"{number} is outside of {datatype.name}")
    return Raw(field, number & (UINT32 if field == INT_VALUE else UINT64))
