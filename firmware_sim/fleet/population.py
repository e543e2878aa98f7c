"""Who is in a fleet: drawn from the seed, the same for a device however large the fleet is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from firmware_sim.randomness import stream

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Protocol = Literal["mqtt", "modbus"]

BATTERY: Final = "bat"
CHARGER: Final = "ev"
INVERTER: Final = "pv"
_SHARES: Final[dict[Protocol, tuple[tuple[str, float], ...]]] = {
    "mqtt": ((BATTERY, 0.4), (CHARGER, 0.9), (INVERTER, 1.0)),
    "modbus": ((BATTERY, 0.6), (INVERTER, 1.0)),
}
"""Kinds of a protocol, each with the upper end of its part of the fleet."""
_PREFIX: Final[dict[Protocol, str]] = {"mqtt": "mq", "modbus": "mb"}
_DRAWS: Final = 8
"""Random numbers of one device."""
_BATTERY_KW: Final = (3.0, 5.0, 7.0)
_CHARGER_KW: Final = (3.7, 7.4, 11.0)
_INVERTER_KW: Final = (3.0, 5.0, 10.0)
_HOURS: Final = 2.0
"""Of full power that a battery stores."""
_CAR_KWH: Final = 60.0
_ONE_WAY: Final = 0.95
_RESERVE: Final = 0.05
_RAMP_KW_PER_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Population:
    """One column per property, one row per device."""

    protocol: Protocol
    ids: tuple[str, ...]
    """`mq-bat-00001`: protocol, kind, number."""
    kinds: tuple[str, ...]
    low_kw: Floats
    """Most it can take, not above 0; power is injection-positive."""
    high_kw: Floats
    """Most it can give, not below 0."""
    capacity_kwh: Floats
    """What it can store; 0 for a device that stores nothing."""
    stored_kwh: Floats
    """At the start."""
    one_way: Floats
    """Efficiency of charging, and of discharging."""
    floor_kwh: Floats
    """Stored energy at which discharging stops."""
    ramp_kw_per_s: Floats
    cloud: Floats
    """0 to 1: how an inverter's sun comes and goes."""
    phase: Floats
    """0 to 1: part of the telemetry interval at which a device reports."""
    old: Flags
    """It speaks MQTT 3.1.1 only."""

    def __len__(self) -> int:
        """Devices."""
        return len(self.ids)


def populate(
    protocol: Protocol, count: int, *, seed: int, old_share: float = 0.0
) -> Population:  # fmt: skip
    """Draw a fleet; `old_share` of its devices speak MQTT 3.1.1 only."""
    drawn = stream(seed, f"fleet/{protocol}").random((count, _DRAWS))
    kinds = _kinds(protocol, drawn[:, 0])
    rating = np.select(
        [kinds == BATTERY, kinds == CHARGER],
        [_pick(_BATTERY_KW, drawn[:, 1]), _pick(_CHARGER_KW, drawn[:, 1])],
        _pick(_INVERTER_KW, drawn[:, 1]),
    )
    battery, charger = kinds == BATTERY, kinds == CHARGER
    capacity = np.select([battery, charger], [_HOURS * rating, _CAR_KWH], 0.0)
    return Population(
        protocol=protocol,
        ids=tuple(f"{_PREFIX[protocol]}-{kind}-{n:05d}" for n, kind in enumerate(kinds)),
        kinds=tuple(str(kind) for kind in kinds),
        low_kw=np.where(kinds == INVERTER, 0.0, -rating),
        high_kw=np.where(charger, 0.0, rating),
        capacity_kwh=capacity,
        stored_kwh=capacity * np.where(battery, 0.2 + 0.7 * drawn[:, 2], 0.5 * drawn[:, 2]),
        one_way=np.where(battery, _ONE_WAY, 1.0),
        floor_kwh=np.where(battery, _RESERVE * capacity, 0.0),
        ramp_kw_per_s=np.full(count, _RAMP_KW_PER_S),
        cloud=drawn[:, 3],
        phase=drawn[:, 4],
        old=drawn[:, 5] < old_share,
    )


def _kinds(protocol: Protocol, drawn: Floats) -> npt.NDArray[np.str_]:
    names = np.array([kind for kind, _ in _SHARES[protocol]])
    ends = [end for _, end in _SHARES[protocol]]
    return names[np.searchsorted(ends, drawn, side="right")]


def _pick(values: tuple[float, ...], drawn: Floats) -> Floats:
    found: Floats = np.array(values)[(drawn * len(values)).astype(int)]
    return found
