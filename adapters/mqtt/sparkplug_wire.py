"""Sparkplug B payloads: bytes to values and back, no I/O.

Eclipse Sparkplug 3.0.0, chapter 6 "Payloads": a protobuf message (proto2) with metrics. Only
what a host needs of it is read: scalars, by name or alias. Metadata, property sets, data
sets, templates and extensions are passed over by their length, whatever is in them. Why the
reader is our own is said in docs/adr/0017.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from adapters.mqtt.sparkplug_payload import (
    BOOLEAN_VALUE,
    BYTES_VALUE,
    DOUBLE_VALUE,
    FLOAT_VALUE,
    INT_VALUE,
    KNOWN,
    LONG_VALUE,
    MAX_SEQUENCE,
    OPAQUE,
    STRING_VALUE,
    UINT32,
    UINT64,
    DataType,
    Metric,
    Payload,
    Raw,
    Value,
    as_raw,
    typed,
)
from adapters.mqtt.wire import MAX_PAYLOAD, WireError

MAX_METRICS: Final = 4_096
"""Metrics in one message; more is malformed."""
MAX_NAME: Final = 512
"""Bytes of a metric's name; more is malformed."""
_MOST_EVIDENCE: Final = 256

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MORE: Final = 0x80
_LOW_BITS: Final = 0x7F
_LONGEST_VARINT: Final = 10
_LARGEST_FIELD: Final = 2**29 - 1
_FLOAT: Final = struct.Struct("<f")
_DOUBLE: Final = struct.Struct("<d")

# Keys as they stand on the wire: field number and wire type (sections 6.4.5 and 6.4.6).
_TIMESTAMP, _METRICS, _SEQ = 1 << 3 | _VARINT, 2 << 3 | _BYTES, 3 << 3 | _VARINT
_NAME, _ALIAS, _STAMP = 1 << 3 | _BYTES, 2 << 3 | _VARINT, 3 << 3 | _VARINT
_TYPE, _HISTORICAL, _NULL = 4 << 3 | _VARINT, 5 << 3 | _VARINT, 7 << 3 | _VARINT
_WIRE_TYPES: Final = {
    INT_VALUE: _VARINT, LONG_VALUE: _VARINT, FLOAT_VALUE: _FIXED32, DOUBLE_VALUE: _FIXED64,
    BOOLEAN_VALUE: _VARINT, STRING_VALUE: _BYTES, BYTES_VALUE: _BYTES,
}  # fmt: skip
_READ: Final[dict[int, tuple[int, Callable[[Any], Value]]]] = {
    field << 3 | _WIRE_TYPES[field]: (field, read)
    for field, read in (
        (INT_VALUE, lambda value: value & UINT32),
        (LONG_VALUE, lambda value: value),
        (FLOAT_VALUE, lambda value: _FLOAT.unpack(value)[0]),
        (DOUBLE_VALUE, lambda value: _DOUBLE.unpack(value)[0]),
        (BOOLEAN_VALUE, bool),
        (STRING_VALUE, lambda value: value.decode()),
        (BYTES_VALUE, lambda value: value),
    )
}
"""Field of each key of a value, and how what stands there is read."""
_OURS: Final = frozenset({1, 2, 3, 4, 5, 7, *_WIRE_TYPES})
"""Fields of a metric that are read: with another wire type they are malformed."""
_PASSED_OVER: Final = range(17, 20)
"""Values of a metric that are passed over: a data set, a template, an extension."""


def decode(data: bytes) -> Payload:
    """Parse a message; WireError, with the bytes, when it is malformed or above a limit."""
    if len(data) > MAX_PAYLOAD:
        raise WireError(f"{len(data)} bytes in one message", data[:_MOST_EVIDENCE])
    try:
        return _payload(data)
    except IndexError as error:
        raise WireError("malformed Sparkplug payload: cut short", data) from error
    except ValueError as error:
        raise WireError(f"malformed Sparkplug payload: {error}", data) from error


def _payload(data: bytes) -> Payload:
    timestamp: int | None = None
    seq: int | None = None
    metrics: list[Metric] = []
    for key, value in _fields(data):
        if key == _METRICS:
            if len(metrics) == MAX_METRICS:
                raise ValueError(f"more than {MAX_METRICS} metrics")
            metrics.append(_metric(value))
        elif key == _TIMESTAMP:
            timestamp = value
        elif key == _SEQ:
            seq = value
        elif key >> 3 in {1, 2, 3}:
            raise ValueError(f"field {key >> 3} has wire type {key & 7}")
    if seq is not None and seq > MAX_SEQUENCE:
        raise ValueError(f"seq {seq} is above {MAX_SEQUENCE}")
    return Payload(timestamp_ms=timestamp, seq=seq, metrics=tuple(metrics))


def _metric(data: bytes) -> Metric:  # noqa: C901 - one branch a field: the hot path
    name: str | None = None
    alias: int | None = None
    stamp: int | None = None
    datatype: DataType | None = None
    historical = null = False
    value_key, found = 0, None
    for key, value in _fields(data):
        if key == _ALIAS:
            alias = value
        elif key == _STAMP:
            stamp = value
        elif key in _READ:  # of a `oneof` the last one counts
            value_key, found = key, value
        elif key == _NAME:
            name = _name(value)
        elif key == _TYPE:
            datatype = _datatype(value & UINT32)
        elif key == _HISTORICAL:
            historical = bool(value)
        elif key == _NULL:
            null = bool(value)
        elif key >> 3 in _OURS:
            raise ValueError(f"field {key >> 3} has wire type {key & 7}")
        elif key >> 3 in _PASSED_OVER:
            value_key = 0
    return Metric(
        name=name, alias=alias, timestamp_ms=stamp, datatype=datatype, historical=historical,
        null=null, value=None if null or not value_key else _value(value_key, found, datatype),
    )  # fmt: skip


def _value(key: int, found: Any, datatype: DataType | None) -> Value | Raw | None:
    field, read = _READ[key]
    raw = Raw(field, read(found))
    if datatype is None:
        return raw
    if datatype in OPAQUE:
        return None
    try:
        return typed(raw, datatype)
    except WireError:
        return raw  # one metric of another type than it says: whoever wants it is told


def _name(value: bytes) -> str:
    if len(value) > MAX_NAME:
        raise ValueError(f"a name of {len(value)} bytes")
    return value.decode()


def _datatype(number: int) -> DataType | None:
    """The type of an index; None for Unknown, and for what later versions may add."""
    return KNOWN.get(number) or None


def _fields(data: bytes) -> list[tuple[int, Any]]:
    """Fields of a protobuf message: key, and an integer or the bytes.

    Nothing is read recursively: what nests deeper than a metric is passed over whole.
    """
    found: list[tuple[int, Any]] = []
    at, end = 0, len(data)
    while at < end:
        key = data[at]
        at += 1
        if key & _MORE:
            key, at = _varint(data, at - 1)
        kind = key & 7
        if not 0 < key >> 3 <= _LARGEST_FIELD:
            raise ValueError(f"field number {key >> 3}")
        if kind == _VARINT:
            value = data[at]
            at += 1
            if value & _MORE:
                value, at = _varint(data, at - 1)
            found.append((key, value))
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in {_FIXED32, _FIXED64}:
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        stop = at + size
        if stop > end:
            raise ValueError(f"field {key >> 3} is cut short")
        found.append((key, data[at:stop]))
        at = stop
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; IndexError when the data ends first."""
    value = shift = 0
    while shift < 7 * _LONGEST_VARINT:
        byte = data[at]
        at += 1
        value |= (byte & _LOW_BITS) << shift
        if byte <= _LOW_BITS:
            return value & UINT64, at
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


def _value_bytes(raw: Raw) -> bytes:
    value = raw.value
    if isinstance(value, str):
        return _sized(raw.field, value.encode())
    if isinstance(value, bytes):
        return _sized(raw.field, value)
    if raw.field in {FLOAT_VALUE, DOUBLE_VALUE}:
        form, kind = (_FLOAT, _FIXED32) if raw.field == FLOAT_VALUE else (_DOUBLE, _FIXED64)
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
    if not 0 <= value <= UINT64:
        raise ValueError(f"{value} is no unsigned 64-bit number")
    out = bytearray()
    while value > _LOW_BITS:
        out.append(value & _LOW_BITS | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)
