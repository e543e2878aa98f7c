"""Modbus/SunSpec codec: what the simulator may share with the adapter. No I/O."""

from __future__ import annotations

from adapters.modbus.sunspec import (
    BASES,
    END_MODEL,
    HEADER,
    MARKER,
    Chain,
    Found,
    Model,
    Point,
    SunSpecError,
    Value,
    decode,
    decode_raw,
    defined,
    encode,
    layout,
    load_model,
    meaning,
    scale_of,
    walk,
)

__all__ = [
    "BASES",
    "END_MODEL",
    "HEADER",
    "MARKER",
    "Chain",
    "Found",
    "Model",
    "Point",
    "SunSpecError",
    "Value",
    "decode",
    "decode_raw",
    "defined",
    "encode",
    "layout",
    "load_model",
    "meaning",
    "scale_of",
    "walk",
]
