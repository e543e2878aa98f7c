"""SunSpec information models: definitions, layout in a device, codec, discovery. No I/O."""

from __future__ import annotations

from adapters.modbus.sunspec.chain import Chain, Found, walk
from adapters.modbus.sunspec.codec import SCALES, decode, decode_raw, encode, meaning, scale_of
from adapters.modbus.sunspec.definition import (
    BASES,
    END_MODEL,
    HEADER,
    MARKER,
    MOST_REGISTERS,
    Model,
    NoMarkerError,
    Point,
    SunSpecError,
    Value,
    defined,
    load_model,
)
from adapters.modbus.sunspec.layout import layout
from adapters.modbus.sunspec.pick import Picker, Place

__all__ = [
    "BASES",
    "END_MODEL",
    "HEADER",
    "MARKER",
    "MOST_REGISTERS",
    "SCALES",
    "Chain",
    "Found",
    "Model",
    "NoMarkerError",
    "Picker",
    "Place",
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
