"""A home battery behind its inverter."""

from __future__ import annotations

import math
from datetime import datetime

import msgspec

_FULL_EPSILON_KWH = 1e-9


class BatterySpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the battery can do."""

    power_kw: float = 5.0
    """Largest charge and discharge power at the terminals."""
    capacity_kwh: float = 6.4
    round_trip: float = 0.9
    """Energy out over energy in; half of the loss (in the logarithm) falls on each way."""
    reserve: float = 0.05
    """Share of the capacity that is never discharged."""
    ramp_kw_per_s: float = 1.0

    @property
    def one_way(self) -> float:
        """Efficiency of charging, and of discharging."""
        return math.sqrt(self.round_trip)

    @property
    def floor_kwh(self) -> float:
        """Stored energy at which discharging stops."""
        return self.reserve * self.capacity_kwh

    def usable_kwh(self, stored_kwh: float) -> float:
        """Stored energy above the reserve: what the battery reports as its charge."""
        return max(0.0, stored_kwh - self.floor_kwh)

    def deliverable_kwh(self, stored_kwh: float) -> float:
        """Energy at the terminals that can be had from a stored amount."""
        return self.usable_kwh(stored_kwh) * self.one_way


class BatteryState(msgspec.Struct, frozen=True):
    """Where the battery stands."""

    at: datetime
    stored_kwh: float
    power_kw: float = 0.0


class BatteryInputs(msgspec.Struct, frozen=True):
    """What reaches the battery during a step."""

    commanded_kw: float | None
    """Setpoint in force; None = nobody commands, so the fallback holds."""
    error_kw: float = 0.0
    """How far the power control misses its target (drawn outside); 0 when idle."""


class BatteryOutputs(msgspec.Struct, frozen=True):
    """What the battery did during a step."""

    mean_kw: float
    power_kw: float
    """At the end of the step."""
    stored_kwh: float
    fallback: bool
    """Nobody commanded. The autonomous behaviour of this battery is to stay idle."""
    limited: bool
    """The state of charge or the rating kept it from following."""


def update(
    spec: BatterySpec, state: BatteryState, time: datetime, inputs: BatteryInputs
) -> tuple[BatteryState, BatteryOutputs]:
    """Advance to `time` under one command; energy is conserved exactly up to the efficiency."""
    seconds = (time - state.at).total_seconds()
    if seconds <= 0:
        msg = f"a step must go forward: {state.at} to {time}"
        raise ValueError(msg)
    target = _target(spec, inputs)
    out_kwh, in_kwh, end_kw = _ramped(state.power_kw, target, spec.ramp_kw_per_s, seconds)
    out_kwh, in_kwh, blocked = _within_charge(spec, state.stored_kwh, out_kwh, in_kwh)
    stored = state.stored_kwh - out_kwh / spec.one_way + in_kwh * spec.one_way
    power = 0.0 if blocked else end_kw
    wanted = inputs.commanded_kw or 0.0
    outputs = BatteryOutputs(
        mean_kw=(out_kwh - in_kwh) * 3600.0 / seconds,
        power_kw=power,
        stored_kwh=stored,
        fallback=inputs.commanded_kw is None,
        limited=blocked or abs(wanted) > spec.power_kw,
    )
    return BatteryState(time, stored, power), outputs


def _target(spec: BatterySpec, inputs: BatteryInputs) -> float:
    if not inputs.commanded_kw:
        return 0.0
    return min(spec.power_kw, max(-spec.power_kw, inputs.commanded_kw + inputs.error_kw))


def _ramped(start: float, target: float, ramp: float, seconds: float) -> tuple[float, float, float]:
    """Discharged and charged energy in kWh and the power at the end of a linear ramp."""
    needed = abs(target - start) / ramp
    ramping = min(seconds, needed)
    end = target if needed <= seconds else start + math.copysign(ramp * seconds, target - start)
    out_kws, in_kws = _slope(start, end, ramping)
    held = seconds - ramping
    out_kws += max(0.0, end) * held
    in_kws += max(0.0, -end) * held
    return out_kws / 3600.0, in_kws / 3600.0, end


def _slope(start: float, end: float, seconds: float) -> tuple[float, float]:
    """Areas above and below zero, in kW s, under a line from `start` to `end`."""
    if start * end >= 0:
        area = (start + end) / 2.0 * seconds
        return max(0.0, area), max(0.0, -area)
    crossing = seconds * abs(start) / (abs(start) + abs(end))
    first, second = start * crossing / 2.0, end * (seconds - crossing) / 2.0
    return max(first, second), -min(first, second)


def _within_charge(
    spec: BatterySpec, stored: float, out_kwh: float, in_kwh: float
) -> tuple[float, float, bool]:
    """Cut a step's energies to what the state of charge allows."""
    most_out = spec.deliverable_kwh(stored)
    most_in = max(0.0, spec.capacity_kwh - stored) / spec.one_way
    blocked = out_kwh > most_out + _FULL_EPSILON_KWH or in_kwh > most_in + _FULL_EPSILON_KWH
    return min(out_kwh, most_out), min(in_kwh, most_in), blocked
