"""Typed quantities and money.

Sign convention at the grid connection point: positive power injects into the
grid, negative power consumes from it. Flexibility is positive when it goes the
way that was asked (see `Direction`).
"""

from __future__ import annotations

import enum
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NewType

import msgspec

Kw = NewType("Kw", float)
"""Active power in kilowatts; injection into the grid is positive."""

Kwh = NewType("Kwh", float)
"""Active energy in kilowatt-hours; injection into the grid is positive."""

_CENT = Decimal("0.01")
_WATT_HOUR = Decimal("0.001")


class Direction(enum.Enum):
    """Which way flexibility moves the connection point."""

    UP = "UP"
    """More injection, or less consumption."""
    DOWN = "DOWN"
    """Less injection, or more consumption."""

    @property
    def sign(self) -> int:
        """+1 for UP and -1 for DOWN: multiplies a power change into flexibility."""
        return 1 if self is Direction.UP else -1


class Money(msgspec.Struct, frozen=True):
    """An exact amount in one currency."""

    amount: Decimal
    currency: str
    """ISO 4217 code, upper case."""

    def __add__(self, other: Money) -> Money:
        """Add two amounts of one currency; raises ValueError when they differ."""
        self._same_currency(other)
        return Money(self.amount + other.amount, self.currency)

    def __neg__(self) -> Money:
        """The same amount with the opposite sign."""
        return Money(-self.amount, self.currency)

    def rounded(self) -> Money:
        """Round half-even to the cent: done once, at the statement line."""
        return Money(self.amount.quantize(_CENT, ROUND_HALF_EVEN), self.currency)

    def _same_currency(self, other: Money) -> None:
        if self.currency != other.currency:
            msg = f"cannot add {other.currency} to {self.currency}: convert first"
            raise ValueError(msg)


def to_watt_hours(energy: Kwh) -> Decimal:
    """Express energy as an exact Decimal in kWh, rounded half-even to one watt-hour."""
    return Decimal(repr(float(energy))).quantize(_WATT_HOUR, ROUND_HALF_EVEN)
