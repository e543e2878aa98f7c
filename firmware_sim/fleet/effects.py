"""What is wrong with each device at the moment: one column per fault."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from firmware_sim.fleet.population import Flags, Floats
from firmware_sim.fleet.scenario import (
    Clamp,
    ClockSkew,
    Delay,
    Drop,
    Lie,
    Replay,
    Stick,
    seconds,
)

if TYPE_CHECKING:
    from firmware_sim.fleet.timeline import Event


class Effects:
    """Columns of a fleet; where two faults of a kind meet, the later entry holds."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.drops: Floats
        """Share of messages that are lost."""
        self.late_s: Floats
        self.moves: Floats
        """Share of the way to a setpoint that the device goes."""
        self.factor: Floats
        """Reported power over true power."""
        self.skew_s: Floats
        self.replay_s: Floats
        """Seconds between two old messages; 0 = none."""
        self.lies: Flags
        """It goes on by itself and reports what it was told."""
        self.stuck: Flags
        """Its power stays where it is."""
        self.frozen: Flags
        """The meter shows what it showed."""
        self.apply(())

    def apply(self, active: Iterable[Event]) -> None:
        """Set the columns to what is in force now."""
        count = self._count
        self.drops, self.late_s = np.zeros(count), np.zeros(count)
        self.moves, self.factor = np.ones(count), np.ones(count)
        self.skew_s, self.replay_s = np.zeros(count), np.zeros(count)
        self.lies, self.stuck, self.frozen = (np.zeros(count, dtype=bool) for _ in range(3))
        for event in active:
            self._set(event)

    def _set(self, event: Event) -> None:
        rows = event.devices
        match event.entry:
            case Drop(share=share):
                self.drops[rows] = share
            case Delay(by=by):
                self.late_s[rows] = seconds(by)
            case Stick(part=part):
                (self.stuck if part == "power" else self.frozen)[rows] = True
            case Lie(factor=None):
                self.lies[rows] = True
            case Lie(factor=factor):
                self.factor[rows] = factor
            case Clamp(share=share):
                self.moves[rows] = share
            case ClockSkew(by=skew):
                self.skew_s[rows] = skew
            case Replay(every=every):
                self.replay_s[rows] = seconds(every)
            case _:
                pass  # a reboot and a storm are over as they begin
