"""A workplace car park: many stays behind one connection, whose total can be limited.

Every car charges at full rate from its arrival. Under a limit the cars that want to charge
share it equally; what they do not get they catch up on once the limit is gone, as long as
they are still there (the rebound).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from firmware_sim.devices.car import STATION_KW, Stay

Array = npt.NDArray[np.float64]
_DONE_KWH = 1e-9


@dataclass(frozen=True, eq=False)
class SiteSpec:
    """The car park's cars, one entry each, and the rate of its stations."""

    arrives: Array
    """Unix seconds, shape (cars,)."""
    leaves: Array
    """Unix seconds, shape (cars,)."""
    energy_kwh: Array
    """What each car takes when nobody hinders it, shape (cars,)."""
    rate_kw: float = STATION_KW

    @classmethod
    def of(cls, stays: Sequence[Stay], rate_kw: float = STATION_KW) -> Self:
        """The car park of some stays."""
        return cls(
            np.array([one.arrival.timestamp() for one in stays], np.float64),
            np.array([one.departure.timestamp() for one in stays], np.float64),
            np.array([one.energy_kwh for one in stays], np.float64),
            rate_kw,
        )

    def unmanaged_kwh(self, at: float) -> Array:
        """Energy in every car at a Unix second when nobody ever limits the site."""
        hours = (np.minimum(at, self.leaves) - self.arrives) / 3600.0
        found: Array = np.clip(self.rate_kw * hours, 0.0, self.energy_kwh)
        return found


class SiteState(msgspec.Struct, frozen=True, eq=False):
    """Where the car park stands."""

    at: datetime
    charged_kwh: Array
    """Per car."""
    power_kw: float = 0.0


class SiteInputs(msgspec.Struct, frozen=True):
    """What reaches the car park during a step."""

    limit_kw: float | None
    """Deepest power the site may draw, negative; None = no limit, which is the fallback."""


class SiteOutputs(msgspec.Struct, frozen=True):
    """What the car park did during a step."""

    mean_kw: float
    """Negative: consumption."""
    power_kw: float
    """At the end of the step."""
    cars: int
    """Cars plugged in at the end of the step."""
    deferred_kwh: float
    """Energy that cars still there would have by now without any limit."""
    unserved_kwh: float
    """Energy that cars which left went without because of a limit."""
    fallback: bool


def started(spec: SiteSpec, at: datetime) -> SiteState:
    """The state at an instant before which nobody limited the site."""
    now = at.timestamp()
    charged = spec.unmanaged_kwh(now)
    return SiteState(at, charged, 0.0 - _demand_kw(spec, charged, now, now))


def update(
    spec: SiteSpec, state: SiteState, time: datetime, inputs: SiteInputs
) -> tuple[SiteState, SiteOutputs]:
    """Advance to `time` under one limit."""
    start, end = state.at.timestamp(), time.timestamp()
    if end <= start:
        msg = f"a step must go forward: {state.at} to {time}"
        raise ValueError(msg)
    demand = _demand_kw(spec, state.charged_kwh, start, end)
    rate = spec.rate_kw * _share(demand, inputs.limit_kw)
    present = np.minimum(end, spec.leaves) - np.maximum(start, spec.arrives)
    wanted = np.maximum(0.0, spec.energy_kwh - state.charged_kwh)
    taken = np.clip(rate * present / 3600.0, 0.0, wanted)
    charged = state.charged_kwh + taken
    after = _demand_kw(spec, charged, end, end)
    power = 0.0 - after * _share(after, inputs.limit_kw)
    gap = np.maximum(0.0, spec.unmanaged_kwh(end) - charged)
    there = (spec.arrives <= end) & (end < spec.leaves)
    outputs = SiteOutputs(
        mean_kw=0.0 - float(taken.sum()) * 3600.0 / (end - start),
        power_kw=power,
        cars=int(there.sum()),
        deferred_kwh=float(gap[there].sum()),
        unserved_kwh=float(gap[~there].sum()),
        fallback=inputs.limit_kw is None,
    )
    return SiteState(time, charged, power), outputs


def _share(demand_kw: float, limit_kw: float | None) -> float:
    """Part of its demand that the site may draw."""
    if limit_kw is None or demand_kw <= 0:
        return 1.0
    return min(1.0, max(0.0, -limit_kw) / demand_kw)


def _demand_kw(spec: SiteSpec, charged: Array, start: float, end: float) -> float:
    """What the hungry cars that are there at any time of the step would draw at full rate."""
    hungry = spec.energy_kwh - charged > _DONE_KWH
    there = (spec.arrives <= start) & (start < spec.leaves)
    coming = (start < spec.arrives) & (spec.arrives < end)
    return float((hungry & (there | coming)).sum()) * spec.rate_kw
