"""Which models measure what: active power, and the energy that a storage holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from adapters.modbus.sunspec import Value

INVERTER_MODELS: Final = (701, 103, 102, 101, 113, 112, 111)
"""Models with `W` of an inverter or a storage inverter, the most telling first."""
NUMBER: Final = (int, float)
METER_MODELS: Final = (203, 202, 201, 204)
STORED: Final[Mapping[int, tuple[str, ...]]] = {
    713: ("WHAvail",), 802: ("SoC", "WHRtg"), 124: ("ChaState",),
}  # fmt: skip
"""Points that say how much a storage holds; the first model that a unit has is asked."""


def stored_kwh(model: int, points: Mapping[str, Value], capacity_kwh: float | None) -> float | None:
    """Kilowatt-hours stored now, as one of the models of `STORED` says it; None = it does not.

    713 says watt-hours; 802 a state of charge of its own rating; 124 one of a rating in
    amp-hours, for which the profile's `capacity_kwh` is taken.
    """
    numbers: list[float] = []
    for name in STORED[model]:
        value = points.get(name)
        if not isinstance(value, NUMBER):
            return None
        numbers.append(value)
    if model == 713:  # noqa: PLR2004 - the model's number is its name
        return numbers[0] / 1000.0
    if model == 802:  # noqa: PLR2004 - the model's number is its name
        return numbers[0] / 100.0 * numbers[1] / 1000.0
    return None if capacity_kwh is None else numbers[0] / 100.0 * capacity_kwh
