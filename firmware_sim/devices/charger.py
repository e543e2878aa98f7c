"""A charging station with the cars that come to it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from firmware_sim.devices.car import STATION_KW, Stay


class ChargerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the station can do, and its cars one after the other."""

    stays: tuple[Stay, ...]
    rate_kw: float = STATION_KW


class ChargerState(msgspec.Struct, frozen=True):
    """Where the station stands."""

    at: datetime
    charged_kwh: tuple[float, ...]
    """Per stay."""
    power_kw: float = 0.0


class ChargerInputs(msgspec.Struct, frozen=True):
    """What reaches the station during a step."""

    limit_kw: float | None
    """Deepest power it may draw, negative; None = no limit, which is the fallback."""


class ChargerOutputs(msgspec.Struct, frozen=True):
    """What the station did during a step."""

    mean_kw: float
    """Negative: consumption."""
    power_kw: float
    """At the end of the step."""
    charged_kwh: float
    """Energy in the car that is there (or came last)."""
    plugged: bool
    unserved_kwh: float
    """Energy that cars which left went without because of a limit."""
    fallback: bool


def started(spec: ChargerSpec, at: datetime) -> ChargerState:
    """The state at an instant before which nobody limited the station."""
    charged = tuple(stay.unmanaged_kwh(at, spec.rate_kw) for stay in spec.stays)
    return ChargerState(at, charged, _power(spec, charged, at, spec.rate_kw))


def update(
    spec: ChargerSpec, state: ChargerState, time: datetime, inputs: ChargerInputs
) -> tuple[ChargerState, ChargerOutputs]:
    """Advance to `time` under one limit; a car that arrives, leaves or fills up does so exactly."""
    seconds = (time - state.at).total_seconds()
    if seconds <= 0:
        msg = f"a step must go forward: {state.at} to {time}"
        raise ValueError(msg)
    rate = allowed_kw(spec.rate_kw, inputs.limit_kw)
    steps = [
        stay.charge(charged, state.at, time, rate)
        for stay, charged in zip(spec.stays, state.charged_kwh, strict=True)
    ]
    charged = tuple(total for total, _ in steps)
    power = _power(spec, charged, time, rate)
    outputs = ChargerOutputs(
        mean_kw=-sum(taken for _, taken in steps) * 3600.0 / seconds,
        power_kw=power,
        charged_kwh=_latest(spec, charged, time),
        plugged=any(stay.plugged(time) for stay in spec.stays),
        unserved_kwh=_unserved(spec, charged, time),
        fallback=inputs.limit_kw is None,
    )
    return ChargerState(time, charged, power), outputs


def allowed_kw(rate_kw: float, limit_kw: float | None) -> float:
    """Consumption that a limit leaves, positive; a limit on the wrong side of zero stops it."""
    return rate_kw if limit_kw is None else min(rate_kw, max(0.0, -limit_kw))


def _power(spec: ChargerSpec, charged: tuple[float, ...], at: datetime, rate: float) -> float:
    hungry = any(
        stay.plugged(at) and stay.hungry(done)
        for stay, done in zip(spec.stays, charged, strict=True)
    )
    return -rate if hungry else 0.0


def _latest(spec: ChargerSpec, charged: tuple[float, ...], at: datetime) -> float:
    came = [done for stay, done in zip(spec.stays, charged, strict=True) if stay.arrival <= at]
    return came[-1] if came else 0.0


def _unserved(spec: ChargerSpec, charged: tuple[float, ...], at: datetime) -> float:
    return sum(
        max(0.0, stay.unmanaged_kwh(at, spec.rate_kw) - done)
        for stay, done in zip(spec.stays, charged, strict=True)
        if stay.departure <= at
    )
