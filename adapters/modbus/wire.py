"""Modbus/SunSpec codec: what the simulator may share with the adapter. No I/O."""

from __future__ import annotations

from adapters.modbus.sunspec import (
    BASES,
    END_MODEL,
    HEADER,
    MARKER,
    Model,
    Point,
    SunSpecError,
    Value,
    decode,
    decode_raw,
    encode,
    load_model,
    scale_of,
)

__all__ = [
    "BASES",
    "END_MODEL",
    "HEADER",
    "MARKER",
    "Model",
    "Point",
    "SunSpecError",
    "Value",
    "decode",
    "decode_raw",
    "encode",
    "load_model",
    "scale_of",
]
