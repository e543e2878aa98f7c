"""A workplace car park: many stays behind one connection, whose total can be limited.

Under a limit the cars that want to charge share it equally; what they do not get they
catch up on once the limit is gone, as long as they are still there (the rebound).
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from firmware_sim.devices.car import STATION_KW, Stay


class SiteSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The car park's cars and the rate of its stations."""

    stays: tuple[Stay, ...]
    rate_kw: float = STATION_KW


class SiteState(msgspec.Struct, frozen=True):
    """Where the car park stands."""

    at: datetime
    charged_kwh: tuple[float, ...]
    """Per stay."""
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
    charged = tuple(stay.unmanaged_kwh(at, spec.rate_kw) for stay in spec.stays)
    return SiteState(at, charged, -_demand_kw(spec, charged, at, at))


def update(
    spec: SiteSpec, state: SiteState, time: datetime, inputs: SiteInputs
) -> tuple[SiteState, SiteOutputs]:
    """Advance to `time` under one limit."""
    seconds = (time - state.at).total_seconds()
    if seconds <= 0:
        msg = f"a step must go forward: {state.at} to {time}"
        raise ValueError(msg)
    demand = _demand_kw(spec, state.charged_kwh, state.at, time)
    rate = spec.rate_kw * _share(demand, inputs.limit_kw)
    steps = [
        stay.charge(charged, state.at, time, rate)
        for stay, charged in zip(spec.stays, state.charged_kwh, strict=True)
    ]
    charged = tuple(total for total, _ in steps)
    mean = -sum(taken for _, taken in steps) * 3600.0 / seconds
    after = _demand_kw(spec, charged, time, time)
    power = -after * _share(after, inputs.limit_kw)
    deferred, unserved = _missing(spec, charged, time)
    cars = sum(stay.plugged(time) for stay in spec.stays)
    fallback = inputs.limit_kw is None
    outputs = SiteOutputs(mean, power, cars, deferred, unserved, fallback)
    return SiteState(time, charged, power), outputs


def _share(demand_kw: float, limit_kw: float | None) -> float:
    """Part of its demand that the site may draw."""
    if limit_kw is None or demand_kw <= 0:
        return 1.0
    return min(1.0, max(0.0, -limit_kw) / demand_kw)


def _demand_kw(spec: SiteSpec, charged: tuple[float, ...], start: datetime, end: datetime) -> float:
    """What the hungry cars that are there at any time of the step would draw at full rate."""
    hungry = (
        stay.hungry(done) and (stay.plugged(start) or start < stay.arrival < end)
        for stay, done in zip(spec.stays, charged, strict=True)
    )
    return sum(hungry) * spec.rate_kw


def _missing(spec: SiteSpec, charged: tuple[float, ...], at: datetime) -> tuple[float, float]:
    """Energy deferred (car still there) and unserved (car gone), in kWh."""
    deferred = unserved = 0.0
    for stay, done in zip(spec.stays, charged, strict=True):
        gap = stay.unmanaged_kwh(at, spec.rate_kw) - done
        if stay.plugged(at):
            deferred += max(0.0, gap)
        else:
            unserved += max(0.0, gap)
    return deferred, unserved
