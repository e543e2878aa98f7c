"""What every device of a fleet does in a step: numpy columns, one step for all.

The same battery as `firmware_sim.devices.battery`, for whole columns: linear ramps, energy
conserved up to the efficiency. A charger is a battery that only takes, an inverter one that
stores nothing and gives what the sun gives.
"""

from __future__ import annotations

import numpy as np

from firmware_sim.fleet.effects import Effects
from firmware_sim.fleet.population import CHARGER, INVERTER, Flags, Floats, Population

_FULL_EPSILON_KWH = 1e-9
_DAY_S = 86_400.0
_CLOUD_S = 900.0
"""A cloud comes and goes in about so many seconds."""
_CLOUD_DEPTH = 0.4
_SECONDS = 3600.0


class Plant:
    """State of charge, power and energy of each device; time in seconds since the start."""

    def __init__(self, population: Population) -> None:
        kinds = np.array(population.kinds)
        self._of = population
        self._charger = kinds == CHARGER
        self._inverter = kinds == INVERTER
        self.stored_kwh = population.stored_kwh.copy()
        self.power_kw = np.zeros(len(population))
        """At the end of the newest step, injection positive."""
        self.mean_kw = np.zeros(len(population))
        """Over the newest step."""

    def step(self, at: float, seconds: float, commanded_kw: Floats, effects: Effects) -> None:
        """Advance from `at` by `seconds`; NaN in `commanded_kw` = nobody commands."""
        target = self._target(at + seconds, commanded_kw, effects)
        out, into, end = _ramped(self.power_kw, target, self._of.ramp_kw_per_s, seconds)
        stores = ~self._inverter
        most_out = np.maximum(0.0, self.stored_kwh - self._of.floor_kwh) * self._of.one_way
        room = np.maximum(0.0, self._of.capacity_kwh - self.stored_kwh)
        most_in = room / self._of.one_way
        blocked = stores & (
            (out > most_out + _FULL_EPSILON_KWH) | (into > most_in + _FULL_EPSILON_KWH)
        )
        out = np.where(stores, np.minimum(out, most_out), out)
        into = np.where(stores, np.minimum(into, most_in), into)
        change = into * self._of.one_way - out / self._of.one_way
        self.stored_kwh += np.where(stores, change, 0.0)
        self.power_kw = np.where(blocked, 0.0, end)
        self.mean_kw = (out - into) * _SECONDS / seconds

    def available(self) -> Flags:
        """Which devices can be driven now: all but chargers whose car is full."""
        room = self._of.capacity_kwh - self.stored_kwh
        found: Flags = ~self._charger | (room > _FULL_EPSILON_KWH)
        return found

    def _target(self, at: float, commanded_kw: Floats, effects: Effects) -> Floats:
        sun = self._sun_kw(at)
        own = np.select([self._charger, self._inverter], [self._of.low_kw, sun], 0.0)
        highest = np.where(self._inverter, sun, self._of.high_kw)
        obeyed = np.clip(commanded_kw, self._of.low_kw, highest)
        target = np.where(np.isnan(commanded_kw), own, own + effects.moves * (obeyed - own))
        target = np.where(effects.lies, own, target)
        return np.where(effects.stuck, self.power_kw, target)

    def _sun_kw(self, at: float) -> Floats:
        """Half a sine over a day that begins at noon, with clouds of each device's own."""
        height = max(0.0, np.cos(2.0 * np.pi * at / _DAY_S))
        wave = np.sin(2.0 * np.pi * (at / _CLOUD_S + self._of.cloud))
        clear = 1.0 - _CLOUD_DEPTH * self._of.cloud * (1.0 + wave) / 2.0
        found: Floats = self._of.high_kw * height * clear
        return found


def _ramped(
    start: Floats, target: Floats, ramp: Floats, seconds: float
) -> tuple[Floats, Floats, Floats]:
    """Given and taken energy in kWh and the power at the end of a linear ramp."""
    needed = np.abs(target - start) / ramp
    ramping = np.minimum(seconds, needed)
    end = np.where(needed <= seconds, target, start + np.sign(target - start) * ramp * seconds)
    out, into = _slope(start, end, ramping)
    held = seconds - ramping
    out += np.maximum(0.0, end) * held
    into += np.maximum(0.0, -end) * held
    return out / _SECONDS, into / _SECONDS, end


def _slope(start: Floats, end: Floats, seconds: Floats) -> tuple[Floats, Floats]:
    """Areas above and below zero, in kW s, under a line from `start` to `end`."""
    area = (start + end) / 2.0 * seconds
    crosses = start * end < 0
    total = np.where(crosses, np.abs(start) + np.abs(end), 1.0)
    crossing = np.where(crosses, seconds * np.abs(start) / total, 0.0)
    first, second = start * crossing / 2.0, end * (seconds - crossing) / 2.0
    out = np.where(crosses, np.maximum(first, second), np.maximum(0.0, area))
    into = np.where(crosses, -np.minimum(first, second), np.maximum(0.0, -area))
    return out, into
