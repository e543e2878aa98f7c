"""Modbus units of a fleet without their sockets: registers, faults, revert timers.

The registers and timers of one unit are those of `firmware_sim.servers.modbus`; what a unit
measures is written into them when somebody reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from firmware_sim.fleet.core import STEP_S, Core
from firmware_sim.fleet.draws import uniform
from firmware_sim.fleet.population import BATTERY, Population
from firmware_sim.fleet.scenario import Reboot, ReconnectStorm, Scenario, seconds
from firmware_sim.servers.modbus import BatteryUnit, InverterUnit, respond

_READ: Final = 3
_DROPS: Final = 21


class ModbusFleet:
    """Units by number, from 0."""

    def __init__(
        self, population: Population, scenario: Scenario, *, seed: int,
        clock: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        """Without a `clock` (seconds since the start) time is that of the newest step."""
        self.core = Core(population, scenario, seed=seed)
        self.population = population
        self._seed = seed
        self._clock = clock or (lambda: self.core.at)
        self._units = [self._made(index) for index in range(len(population))]
        self._shown_at = np.full(len(population), -1.0)
        self._images: dict[int, dict[bytes, bytes]] = {}
        """Of each unit that replays, the answers that it gave while it still measured."""
        self._asked = [0] * len(population)
        self._driven: set[int] = set()
        self._away_until: dict[int, float] = {}

    def step(self) -> list[tuple[int, float]]:
        """Advance all units; those that lose their connections now, and for how long."""
        for unit in list(self._driven):
            self._obey(unit)
        losses: list[tuple[int, float]] = []
        for event in self.core.step():
            units: list[int] = event.devices.tolist()
            match event.entry:
                case Reboot(down=down):
                    losses += [(unit, seconds(down)) for unit in units]
                    for unit in units:
                        self._reboot(unit, seconds(down))
                case ReconnectStorm():
                    losses += [(unit, 0.0) for unit in units]
                case _:
                    pass  # a column of the effects
        return losses

    def answer(self, unit: int, function: int, body: bytes) -> tuple[float, bytes] | None:
        """Answer a request; the PDU with its delay, None when nothing comes back."""
        effects = self.core.effects
        self._asked[unit] += 1
        if self.away(unit):
            return None
        share = effects.drops[unit]
        if share and uniform(self._seed, _DROPS, unit, self._asked[unit]) < share:
            return None
        late = float(effects.late_s[unit])
        if function == _READ:
            return late, self._read(unit, body)
        reply = respond(self._units[unit], function, body)
        self._driven.add(unit)
        self._obey(unit)
        return late, reply

    def away(self, unit: int) -> bool:
        """Whether it is booting."""
        until = self._away_until.get(unit)
        if until is not None and self._clock() >= until:
            del self._away_until[unit]
            until = None
        return until is not None

    def commanded_kw(self, unit: int) -> float | None:
        """Power to hold (battery) or ceiling to keep (inverter) now; None = neither."""
        return self._units[unit].commanded_kw()

    def _read(self, unit: int, body: bytes) -> bytes:
        replays = self.core.effects.replay_s[unit] > 0
        image = self._images.setdefault(unit, {}) if replays else None
        if image is None:
            self._images.pop(unit, None)
        elif body in image:
            return image[body]
        if self._shown_at[unit] != self.core.at:
            self._show(unit)
        reply = respond(self._units[unit], _READ, body)
        if image is not None:
            image[body] = reply
        return reply

    def _show(self, unit: int) -> None:
        """Put what the unit's meter shows into its registers."""
        core, shown = self.core, self._units[unit]
        self._shown_at[unit] = core.at
        power = float(core.sample_kw[unit])
        if isinstance(shown, BatteryUnit):
            shown.publish(power_kw=power, soc_kwh=float(core.plant.stored_kwh[unit]))
        else:
            shown.publish(power_kw=power)

    def _obey(self, unit: int) -> None:
        kw = self._units[unit].commanded_kw()
        self.core.commanded_kw[unit] = np.nan if kw is None else kw
        if kw is None:
            self._driven.discard(unit)

    def _reboot(self, unit: int, down_s: float) -> None:
        """Registers are as when it was new: nothing is enabled, no timer runs."""
        self._units[unit] = self._made(unit)
        self._shown_at[unit] = -1.0
        self._away_until[unit] = self.core.at + down_s - STEP_S
        self._driven.discard(unit)
        self.core.commanded_kw[unit] = np.nan

    def _made(self, index: int) -> BatteryUnit | InverterUnit:
        of = self.population
        name, serial = of.ids[index], serial_of(of.ids[index])
        if of.kinds[index] == BATTERY:
            return BatteryUnit(
                name, serial=serial, capacity_kwh=float(of.capacity_kwh[index]),
                monotonic=self._clock,
            )  # fmt: skip
        return InverterUnit(
            name, serial=serial, rated_kw=float(of.high_kw[index]), monotonic=self._clock
        )


def serial_of(device: str) -> str:
    """Serial number of a unit, as its common model says it."""
    return f"SN-{device}"
