"""A charging station with the cars that come to it.

Left alone it spreads each car's energy over the stay. A setpoint makes a hungry car draw
exactly that power, more or less than it would by itself. The driver comes first: a car that
has no slack left is charged at full rate, whatever the station is told.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from firmware_sim.devices.car import SLOWEST_KW, STATION_KW, Stay

_DONE_KWH = 1e-9
_SLACK_KWH = 1e-6
"""Slack below a milliwatt-hour is none: rounding does not decide over a driver."""


class Car(NamedTuple):
    """A stay in numbers; instants are Unix seconds."""

    arrives: float
    leaves: float
    finish_by: float
    energy_kwh: float
    spread_kw: float


class ChargerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the station can do, and its cars one after the other."""

    cars: tuple[Car, ...]
    rate_kw: float = STATION_KW


class ChargerState(msgspec.Struct, frozen=True):
    """Where the station stands."""

    at: datetime
    charged_kwh: tuple[float, ...]
    """Per car."""
    power_kw: float = 0.0


class ChargerInputs(msgspec.Struct, frozen=True):
    """What reaches the station during a step."""

    setpoint_kw: float | None
    """Power to draw, negative; None = nobody commands, so it spreads charging."""


class ChargerOutputs(msgspec.Struct, frozen=True):
    """What the station did during a step, and what it says at the end of it."""

    mean_kw: float
    """Negative: consumption."""
    power_kw: float
    plugged: bool
    available: bool
    """A car is there that wants energy and has slack: it can be driven."""
    wanted_kwh: float | None
    """What the car that is there still wants; None when there is none."""
    leaves: datetime | None
    """When that car leaves."""
    unserved_kwh: float
    """Energy that cars which left went without because somebody commanded."""
    fallback: bool


def spec_of(stays: tuple[Stay, ...], rate_kw: float = STATION_KW) -> ChargerSpec:
    """The station of some stays, none of which overlap."""
    cars = tuple(
        Car(
            one.arrival.timestamp(), one.departure.timestamp(), one.finish_by.timestamp(),
            one.energy_kwh, one.spread_kw(rate_kw),
        )
        for one in stays
    )  # fmt: skip
    return ChargerSpec(cars=cars, rate_kw=rate_kw)


def started(spec: ChargerSpec, at: datetime) -> ChargerState:
    """The state at an instant before which nobody commanded the station."""
    charged = tuple(undisturbed_kwh(car, at.timestamp()) for car in spec.cars)
    state = ChargerState(at, charged)
    return msgspec.structs.replace(state, power_kw=outputs(spec, state, 0.0, None).power_kw)


def update(
    spec: ChargerSpec, state: ChargerState, time: datetime, inputs: ChargerInputs
) -> tuple[ChargerState, ChargerOutputs]:
    """Advance to `time`; a car comes, goes, fills up and loses its slack to the second."""
    start, end = state.at.timestamp(), time.timestamp()
    if end <= start:
        msg = f"a step must go forward: {state.at} to {time}"
        raise ValueError(msg)
    asked = inputs.setpoint_kw
    taken = [
        _taken(spec.rate_kw, car, car.energy_kwh - done, (start, end), asked)
        for car, done in zip(spec.cars, state.charged_kwh, strict=True)
    ]
    charged = tuple(done + more for done, more in zip(state.charged_kwh, taken, strict=True))
    after = ChargerState(time, charged)
    did = outputs(spec, after, -sum(taken) * 3600.0 / (end - start), asked)
    return ChargerState(time, charged, did.power_kw), did


def outputs(
    spec: ChargerSpec, state: ChargerState, mean_kw: float, asked: float | None
) -> ChargerOutputs:
    """What a station shows in a state, having drawn `mean_kw` until then."""
    at = state.at.timestamp()
    power, wanted, leaves, available, unserved = 0.0, None, None, False, 0.0
    for car, done in zip(spec.cars, state.charged_kwh, strict=True):
        if car.leaves <= at:
            unserved += max(0.0, undisturbed_kwh(car, car.leaves) - done)
        elif car.arrives <= at:
            wanted, leaves = max(0.0, car.energy_kwh - done), car.leaves
            if wanted > _DONE_KWH:
                available = slack_kwh(spec.rate_kw, car, wanted, at) > _SLACK_KWH
                power = -_rate(spec.rate_kw, car, wanted, at, asked if available else -spec.rate_kw)
    return ChargerOutputs(
        mean_kw=0.0 + mean_kw, power_kw=0.0 + power, plugged=leaves is not None,
        available=available, wanted_kwh=wanted,
        leaves=None if leaves is None else datetime.fromtimestamp(leaves, UTC),
        unserved_kwh=unserved, fallback=asked is None,
    )  # fmt: skip


def undisturbed_kwh(car: Car, at: float) -> float:
    """Energy in the car at an instant when nobody ever commanded."""
    hours = (min(at, car.leaves) - car.arrives) / 3600.0
    return max(0.0, min(car.energy_kwh, car.spread_kw * hours))


def slack_kwh(rate_kw: float, car: Car, wanted_kwh: float, at: float) -> float:
    """What the station could charge at full rate before the car leaves, beyond what it wants."""
    return rate_kw * (car.leaves - at) / 3600.0 - wanted_kwh


def _taken(
    rate_kw: float, car: Car, wanted: float, span: tuple[float, float], asked: float | None
) -> float:
    """Energy that a car takes within a span, in kWh."""
    start, end = max(span[0], car.arrives), min(span[1], car.leaves)
    if end <= start or wanted <= _DONE_KWH:
        return 0.0
    hours = (end - start) / 3600.0
    rate = _rate(rate_kw, car, wanted, start, asked)
    free = max(0.0, slack_kwh(rate_kw, car, wanted, start))
    # While it draws less than the full rate its slack shrinks by the difference.
    calm = min(hours, free / (rate_kw - rate)) if rate < rate_kw else hours
    return min(wanted, rate * calm + rate_kw * (hours - calm))


def _rate(rate_kw: float, car: Car, wanted: float, at: float, asked: float | None) -> float:
    """Power of a hungry car with slack, positive."""
    if asked is not None:
        return min(rate_kw, max(0.0, -asked))
    hours = (car.finish_by - at) / 3600.0
    return rate_kw if hours <= 0 else min(rate_kw, max(SLOWEST_KW, wanted / hours))
