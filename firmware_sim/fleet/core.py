"""Physics, faults and readings of a fleet, whatever it speaks: a step is a step of all."""

from __future__ import annotations

import numpy as np

from firmware_sim.fleet.effects import Effects
from firmware_sim.fleet.physics import Plant
from firmware_sim.fleet.population import Flags, Floats, Population
from firmware_sim.fleet.scenario import Scenario
from firmware_sim.fleet.timeline import Event, Timeline

STEP_S = 1.0


class Core:
    """Steps of one second; `at` is the time since the start, always at the end of a step."""

    def __init__(self, population: Population, scenario: Scenario, *, seed: int) -> None:
        count = len(population)
        self.population = population
        self.timeline = Timeline(scenario, population, seed=seed)
        self.effects = Effects(count)
        self.plant = Plant(population)
        self.at = 0.0
        self.commanded_kw: Floats = np.full(count, np.nan)
        """What each device is told to hold; NaN = nothing. Set before a step."""
        self.sample_kw: Floats = np.zeros(count)
        """What each device says it does now."""
        self.mean_kw: Floats = np.zeros(count)
        """What it says it did in the newest step."""
        self._frozen: Flags = np.zeros(count, dtype=bool)

    def step(self) -> list[Event]:
        """Advance; entries of the timeline that began with this step."""
        began, changed, active = self.timeline.advance(self.at)
        if changed:
            self.effects.apply(active)
        self.plant.step(self.at, STEP_S, self.commanded_kw, self.effects)
        self.at += STEP_S
        self._measure()
        return began

    def _measure(self) -> None:
        """What the meters show, which is what is reported."""
        effects = self.effects
        pretends = effects.lies & ~np.isnan(self.commanded_kw)
        for shown, true in (
            (self.sample_kw, self.plant.power_kw),
            (self.mean_kw, self.plant.mean_kw),
        ):
            fresh = np.where(pretends, self.commanded_kw, true * effects.factor)
            np.copyto(shown, fresh, where=~effects.frozen)
