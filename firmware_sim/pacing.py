"""Steps the plant along with the wall clock, and never skips a step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from firmware_sim.plant import Minutes, Moment, Plant
from firmware_sim.records import Recorder
from marketplace_core.ports import TimeMap
from marketplace_core.verification.reading import Reading

Commands = Callable[[], Mapping[str, float | None]]


class Pace:
    """One plant on one time map.

    Before each step `before_step` gets the market time, after it `on_step` gets every device's
    moment, after each full minute `on_minute` gets the minute's readings.
    """

    def __init__(
        self,
        plant: Plant,
        *,
        time_map: TimeMap,
        step: timedelta,
        commands: Commands,
        before_step: Callable[[datetime], None] = lambda _at: None,
        on_step: Callable[[list[Moment]], None],
        on_minute: Callable[[list[Reading]], None],
        record: Recorder,
    ) -> None:
        self._plant = plant
        self._map = time_map
        self._step = step
        self._commands = commands
        self._before_step = before_step
        self._on_step = on_step
        self._on_minute = on_minute
        self._record = record
        self._minutes = Minutes(plant.at)
        self._in_force: dict[str, float | None] = {}

    async def run(self, until: datetime) -> None:
        """Step until market time reaches `until`; cancellation ends it between two steps.

        However far it is behind, the servers get their turn after every step: a device whose
        answers wait until all steps are caught up with looks dead from outside.
        """
        while self._plant.at < until:
            if self._due(until):
                self.advance()
            await asyncio.sleep(self._wait_s())

    def catch_up(self, until: datetime) -> None:
        """Take every step that is due by now, up to `until`, in one go."""
        while self._due(until):
            self.advance()

    def advance(self) -> None:
        """Take one step under the commands in force now."""
        self._before_step(self._plant.at)
        commands = self._commands()
        self._note_effects(commands)
        since, time = self._plant.at, self._plant.at + self._step
        moments = self._plant.step(time, commands)
        self._on_step(moments)
        readings = self._minutes.add(since, time, moments)
        if readings:
            self._on_minute(readings)

    def _due(self, until: datetime) -> bool:
        now = self._map.to_market(datetime.now(UTC))
        return self._plant.at + self._step <= min(now, until)

    def _wait_s(self) -> float:
        next_wall = self._map.to_wall(self._plant.at + self._step)
        return max(0.0, (next_wall - datetime.now(UTC)).total_seconds())

    def _note_effects(self, commands: Mapping[str, float | None]) -> None:
        """Write down every change of what a device obeys; falling back is a change too."""
        for device, kw in commands.items():
            if self._in_force.get(device) != kw:
                self._record(device, "effect", commanded_kw=kw, was_kw=self._in_force.get(device))
                self._in_force[device] = kw
