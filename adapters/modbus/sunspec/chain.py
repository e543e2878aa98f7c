"""Which models a unit has and where: the chain from the marker to the end model, no I/O.

`walk` is a generator: it yields what is to be read and is sent the registers, or None where
the unit says that it has none there.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import msgspec

from adapters.modbus.sunspec.definition import BASES, END_MODEL, HEADER, MARKER, NoMarkerError

_MOST_MODELS: Final = 64
_ADDRESSES: Final = 0x1_0000
Walk = Generator[tuple[int, int], "list[int] | None", "Chain"]


class Found(msgspec.Struct, frozen=True):
    """One model of a unit."""

    model: int
    address: int
    """Of its header."""
    length: int
    """Registers that the unit says it has, header included."""


class Chain(msgspec.Struct, frozen=True):
    """The models of a unit, in their order; the same id may come several times."""

    base: int
    models: tuple[Found, ...]
    remark: str = ""
    """What is wrong with the chain; the models before it are good."""

    def first(self, model: int) -> Found | None:
        """The first model of that id."""
        return next((found for found in self.models if found.model == model), None)


def walk() -> Walk:
    """Find the marker, then every model; NoMarkerError when there is no marker.

    A chain that breaks off (no end model, a length that leads past the last address, zeros) ends
    there: what came before it is kept, and the remark says what was wrong.
    """
    base = yield from _base()
    address, models = base + len(MARKER), list[Found]()
    while len(models) < _MOST_MODELS:
        if address + HEADER > _ADDRESSES:
            return Chain(base, tuple(models), "no end model before the last address")
        header = yield address, HEADER
        if header is None:
            return Chain(base, tuple(models), f"no end model: nothing to read at {address}")
        number, length = header
        if number == END_MODEL:
            return Chain(base, tuple(models))
        if number == 0:
            return Chain(base, tuple(models), f"no end model: no model at {address}")
        if address + HEADER + length > _ADDRESSES:
            remark = f"model {number} at {address} claims {length} registers: more than there are"
            return Chain(base, tuple(models), remark)
        models.append(Found(number, address, HEADER + length))
        address += HEADER + length
    return Chain(base, tuple(models), f"no end model after {_MOST_MODELS} models")


def _base() -> Generator[tuple[int, int], list[int] | None, int]:
    for base in BASES:
        registers = yield base, len(MARKER)
        if registers is not None and tuple(registers) == MARKER:
            return base
    places = ", ".join(map(str, BASES))
    raise NoMarkerError(f"no SunSpec marker at any base address ({places})")
