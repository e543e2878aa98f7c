"""How well devices follow running orders: what they measure over what they were told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from marketplace_core.units import Kw


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """What a running order asks of one device; power is absolute, injection positive."""

    device_id: str
    protocol: str
    reference_kw: Kw
    """Power of the device that its share was added to."""
    power_kw: Kw
    """What it was told."""


@dataclass(frozen=True)
class Compliance:
    """Flexibility of some devices, positive in the direction that was asked for."""

    instructed_kw: float
    measured_kw: float

    @property
    def ratio(self) -> float:
        """Measured over instructed; NaN when nothing was asked."""
        return self.measured_kw / self.instructed_kw if self.instructed_kw > 0 else math.nan


def compliance(
    instructions: Iterable[Instruction], measured_kw: Callable[[str], float | None]
) -> Mapping[str, Compliance]:
    """Compliance per protocol; `measured_kw` gives a device's power now, None when unknown.

    A device that nobody hears delivers nothing: what is not measured is not believed.
    """
    totals: dict[str, tuple[float, float]] = {}
    for instruction in instructions:
        change = instruction.power_kw - instruction.reference_kw
        power = measured_kw(instruction.device_id)
        moved = 0.0 if power is None else power - instruction.reference_kw
        delivered = math.copysign(1.0, change) * moved if change else 0.0
        instructed, measured = totals.get(instruction.protocol, (0.0, 0.0))
        totals[instruction.protocol] = (instructed + abs(change), measured + delivered)
    return {protocol: Compliance(*total) for protocol, total in totals.items()}
