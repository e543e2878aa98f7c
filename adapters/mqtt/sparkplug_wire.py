"""Sparkplug B payloads: bytes to values and back, no I/O.

Eclipse Sparkplug 3.0.0, chapter 6 "Payloads": a protobuf message (proto2) with metrics. Only
what a host needs of it is read: scalars, by name or alias. Metadata, property sets, data
sets, templates and extensions are passed over by their length, whatever is in them. Why the
reader is our own is said in docs/adr/0017.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from adapters.mqtt.wire import MAX_PAYLOAD, WireError

MAX_METRICS: Final = 4_096
"""Metrics in one message; more is malformed."""
MAX_NAME: Final = 512
"""Bytes of a metric's name; more is malformed."""
MAX_SEQUENCE: Final = 255
MAX_MILLIS: Final = 4_102_444_800_000
"""1 January 2100: no later time is believed."""
_MOST_EVIDENCE: Final = 256

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_LONGEST_VARINT: Final = 10
_MORE: Final = 0x80
_LOW_BITS: Final = 0x7F
_UINT64: Final = 2**64 - 1
_UINT32: Final = 2**32 - 1
_INT_VALUE, _LONG_VALUE, _FLOAT_VALUE, _DOUBLE_VALUE = 10, 11, 12, 13
_BOOLEAN_VALUE, _STRING_VALUE, _BYTES_VALUE, _EXTENSION_VALUE = 14, 15, 16, 19
_FLOAT: Final = struct.Struct("<f")
_DOUBLE: Final = struct.Struct("<d")


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

_KNOWN: Final = {int(kind): kind for kind in DataType}
_SIGNED: Final = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}
_UNSIGNED: Final = {
    DataType.UINT8: 8, DataType.UINT16: 16, DataType.UINT32: 32, DataType.UINT64: 64,
    DataType.DATETIME: 64,
}  # fmt: skip
INTEGERS: Final = {**_SIGNED, **_UNSIGNED}
"""Integer types and their bits."""
FLOATS: Final = frozenset({DataType.FLOAT, DataType.DOUBLE})
_OPAQUE: Final = frozenset({
    DataType.DATASET, DataType.TEMPLATE, DataType.PROPERTY_SET, DataType.PROPERTY_SET_LIST,
})  # fmt: skip
_FIELDS: Final[dict[DataType, int]] = {
    **{kind: _INT_VALUE if bits <= 32 else _LONG_VALUE for kind, bits in INTEGERS.items()},  # noqa: PLR2004 - bits
    DataType.FLOAT: _FLOAT_VALUE,
    DataType.DOUBLE: _DOUBLE_VALUE,
    DataType.BOOLEAN: _BOOLEAN_VALUE,
    **dict.fromkeys((DataType.STRING, DataType.TEXT, DataType.UUID), _STRING_VALUE),
    **dict.fromkeys((DataType.BYTES, DataType.FILE, *list(DataType)[22:]), _BYTES_VALUE),
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
    if datatype in INTEGERS and field in {_INT_VALUE, _LONG_VALUE}:
        width = 32 if field == _INT_VALUE else 64
        return _integer(int(value), datatype, width)
    wanted = _FIELDS.get(datatype)
    if field == wanted or (datatype in FLOATS and field in {_FLOAT_VALUE, _DOUBLE_VALUE}):
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


def decode(data: bytes) -> Payload:
    """Parse a message; WireError, with the bytes, when it is malformed or above a limit."""
    if len(data) > MAX_PAYLOAD:
        raise WireError(f"{len(data)} bytes in one message", data[:_MOST_EVIDENCE])
    try:
        return _payload(data)
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise WireError(f"malformed Sparkplug payload: {error}", data) from error
    except WireError as error:
        raise WireError(f"malformed Sparkplug payload: {error}", data) from error


def _payload(data: bytes) -> Payload:
    timestamp: int | None = None
    seq: int | None = None
    metrics: list[Metric] = []
    for number, kind, value in _fields(data):
        if number == 2:  # noqa: PLR2004 - field numbers of section 6.4.1
            _expect(kind, _BYTES, number)
            if len(metrics) == MAX_METRICS:
                raise ValueError(f"more than {MAX_METRICS} metrics")
            metrics.append(_metric(value))
        elif number == 1:
            _expect(kind, _VARINT, number)
            timestamp = _millis(value)
        elif number == 3:  # noqa: PLR2004
            _expect(kind, _VARINT, number)
            seq = value
    if seq is not None and seq > MAX_SEQUENCE:
        raise ValueError(f"seq {seq} is above {MAX_SEQUENCE}")
    return Payload(timestamp_ms=timestamp, seq=seq, metrics=tuple(metrics))


_METRIC_KINDS: Final = {
    1: _BYTES, 2: _VARINT, 3: _VARINT, 4: _VARINT, 5: _VARINT, 7: _VARINT,
    _INT_VALUE: _VARINT, _LONG_VALUE: _VARINT, _FLOAT_VALUE: _FIXED32, _DOUBLE_VALUE: _FIXED64,
    _BOOLEAN_VALUE: _VARINT, _STRING_VALUE: _BYTES, _BYTES_VALUE: _BYTES,
}  # fmt: skip
_READ: Final[dict[int, Callable[[Any], Value]]] = {
    _INT_VALUE: lambda value: value & _UINT32,
    _LONG_VALUE: lambda value: value,
    _FLOAT_VALUE: lambda value: _FLOAT.unpack(value)[0],
    _DOUBLE_VALUE: lambda value: _DOUBLE.unpack(value)[0],
    _BOOLEAN_VALUE: bool,
    _STRING_VALUE: lambda value: value.decode(),
    _BYTES_VALUE: lambda value: value,
}


def _metric(data: bytes) -> Metric:
    found: dict[int, Any] = {}
    field = 0
    for number, kind, value in _fields(data):
        expected = _METRIC_KINDS.get(number)
        if expected is not None:
            _expect(kind, expected, number)
            found[number] = value
        if _INT_VALUE <= number <= _EXTENSION_VALUE:
            field = number  # of a `oneof` the last one counts
    name: bytes | None = found.get(1)
    if name is not None and len(name) > MAX_NAME:
        raise ValueError(f"a name of {len(name)} bytes")
    datatype = _datatype(found.get(4, 0) & _UINT32)
    null = bool(found.get(7, 0))
    stamp = found.get(3)
    return Metric(
        name=None if name is None else name.decode(),
        alias=found.get(2),
        timestamp_ms=None if stamp is None else _millis(stamp),
        datatype=datatype,
        historical=bool(found.get(5, 0)),
        null=null,
        value=None if null or field not in _READ else _value(field, found[field], datatype),
    )


def _value(field: int, found: Any, datatype: DataType | None) -> Value | Raw | None:
    raw = Raw(field, _READ[field](found))
    if datatype is None:
        return raw
    return None if datatype in _OPAQUE else typed(raw, datatype)


def _datatype(number: int) -> DataType | None:
    kind = _KNOWN.get(number)
    if kind is None:
        raise ValueError(f"there is no datatype {number}")
    return None if kind is DataType.UNKNOWN else kind


def _millis(value: int) -> int:
    if value >= MAX_MILLIS:
        raise ValueError(f"{value} ms is after the year 2100")
    return value


def _expect(kind: int, expected: int, number: int) -> None:
    if kind != expected:
        raise ValueError(f"field {number} has wire type {kind}, not {expected}")


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Fields of a protobuf message: number, wire type, and an integer or the bytes.

    Nothing is read recursively: what nests deeper than a metric is passed over whole.
    """
    at, end = 0, len(data)
    while at < end:
        key = data[at]
        at += 1
        if key & _MORE:
            key, at = _varint(data, at - 1)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("field number 0")
        if kind == _VARINT:
            value = data[at]
            at += 1
            if value & _MORE:
                value, at = _varint(data, at - 1)
            yield number, kind, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in {_FIXED32, _FIXED64}:
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if size > end - at:
            raise ValueError(f"field {number} is cut short")
        yield number, kind, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[at : at + _LONGEST_VARINT]:
        value |= (byte & _LOW_BITS) << shift
        at += 1
        if not byte & _MORE:
            return value & _UINT64, at
        shift += 7
    raise ValueError("a number does not end")


def encode(payload: Payload) -> bytes:
    """A message as bytes; ValueError for what Sparkplug cannot say."""
    parts = []
    if payload.timestamp_ms is not None:
        parts.append(_number(1, payload.timestamp_ms))
    parts += [_sized(2, _metric_bytes(metric)) for metric in payload.metrics]
    if payload.seq is not None:
        parts.append(_number(3, payload.seq))
    return b"".join(parts)


def _metric_bytes(metric: Metric) -> bytes:
    parts = []
    if metric.name is not None:
        parts.append(_sized(1, metric.name.encode()))
    for number, value in ((2, metric.alias), (3, metric.timestamp_ms), (4, metric.datatype)):
        if value is not None:
            parts.append(_number(number, value))
    for number, said in ((5, metric.historical), (7, metric.null)):
        if said:
            parts.append(_number(number, 1))
    if metric.value is not None:
        raw = metric.value
        if not isinstance(raw, Raw):
            raw = as_raw(raw, metric.datatype)
        parts.append(_value_bytes(raw))
    return b"".join(parts)


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
    return Raw(field, number & (_UINT32 if field == _INT_VALUE else _UINT64))


def _value_bytes(raw: Raw) -> bytes:
    value = raw.value
    if isinstance(value, str):
        return _sized(raw.field, value.encode())
    if isinstance(value, bytes):
        return _sized(raw.field, value)
    if raw.field in {_FLOAT_VALUE, _DOUBLE_VALUE}:
        form, kind = (_FLOAT, _FIXED32) if raw.field == _FLOAT_VALUE else (_DOUBLE, _FIXED64)
        try:
            return _encoded(raw.field << 3 | kind) + form.pack(value)
        except OverflowError as error:
            raise ValueError(f"{value} is too large for a Float") from error
    return _number(raw.field, int(value))


def _number(field: int, value: int) -> bytes:
    return _encoded(field << 3 | _VARINT) + _encoded(value)


def _sized(field: int, data: bytes) -> bytes:
    return _encoded(field << 3 | _BYTES) + _encoded(len(data)) + data


def _encoded(value: int) -> bytes:
    if not 0 <= value <= _UINT64:
        raise ValueError(f"{value} is no unsigned 64-bit number")
    out = bytearray()
    while value > _LOW_BITS:
        out.append(value & _LOW_BITS | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)
