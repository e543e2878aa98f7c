"""Device profiles as what the Modbus adapter takes."""

from __future__ import annotations

import msgspec

from adapters.modbus.reads import ReadLimits, Span
from adapters.modbus.registers.definition import RegisterMap
from config.profile_model import ProfileDocument


def register_map(document: ProfileDocument) -> RegisterMap:
    """A device profile as the adapter takes it."""
    fields = document.model_dump()
    for point in fields["points"].values():
        for key in ("word_order", "byte_order"):
            point[key] = point[key] or fields[key]
    return msgspec.convert(fields, RegisterMap)


def read_limits(document: ProfileDocument, reads: ReadLimits) -> ReadLimits:
    """What one read may be: the narrower of a device profile's limits and these."""
    own = tuple(Span(first, last + 1) for first, last in document.unreadable)
    return ReadLimits(
        max_registers=min(reads.max_registers, document.max_registers),
        max_gap=min(reads.max_gap, document.max_gap), forbidden=(*reads.forbidden, *own),
    )  # fmt: skip
