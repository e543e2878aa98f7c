"""A controller's heartbeat as a lease: model 715, or a register of a device profile.

`ControllerHb` is "incremented every second by the controller" (model_715.json). What a unit
does when it stands still, and after how long, the model does not say: the profile declares
the fallback, and it is to be seen in a test before it is relied upon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from adapters.modbus.control import Control, InForce
from adapters.modbus.driven import DrivenUnit
from adapters.modbus.errors import PointError
from adapters.modbus.link import COMMAND, LinkError
from adapters.modbus.offer import HEARTBEAT_MODEL
from adapters.modbus.sunspec import SunSpecError, Value

_BEAT_S: Final = 1.0
"""Wall seconds from one beat to the next, as the model has it."""
WRAP: Final = 0xFFFF_FFFE
"""It starts again from 0 here: the next number means "not implemented"."""
_LOCAL: Final = 1
_log = structlog.get_logger(__name__)


class Beaten:
    """A control whose lease is the heartbeat: its timers are left alone, and so is the value.

    What a refresh writes is the enable point, which is in force already: it is the read-back
    that counts.
    """

    def __init__(self, control: Control) -> None:
        self.model = control.model
        self.reference = control.reference
        self._control = control

    def learn(self, models: Mapping[int, Mapping[str, Value]]) -> None:
        """What the control learns."""
        self._control.learn(models)

    def start(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """Without timer and revert value."""
        points = self._control.start(power_kw, lease_wall_s)
        return {name: value for name, value in points.items() if "Rvrt" not in name}

    def refresh(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """The last point of a start: enable."""
        name, value = list(self.start(power_kw, lease_wall_s).items())[-1]
        return {name: value}

    def stop(self) -> dict[str, float]:
        """Disable."""
        return self._control.stop()

    def parse(self, points: Mapping[str, Value]) -> InForce:
        """As the control says; how long it would go on without a beat, the unit does not tell."""
        found = self._control.parse(points)
        return InForce(found.active, found.power_kw, None, found.step_kw)


class Heartbeat:
    """Beats for one unit for as long as its lease holds."""

    def __init__(
        self, unit: DrivenUnit, *, monotonic: Callable[[], float], model: int = HEARTBEAT_MODEL,
        point: str = "ControllerHb", wrap: int = WRAP, every_s: float = _BEAT_S,
    ) -> None:  # fmt: skip
        """`point`: the counter; `wrap`: where it begins again; `every_s`: wall seconds a beat."""
        self._unit = unit
        self._monotonic = monotonic
        self._model, self._point = model, point
        self._wrap, self._every_s = wrap, every_s
        self._until = 0.0
        self._count = 0
        self._held = asyncio.Event()

    async def hold(self, wall_s: float) -> None:
        """Beat now, and each second for so many more.

        When nobody calls it again, the beat stops and the unit falls back. Raises LinkError, and
        PointError where the unit takes no heartbeat or is in local control.
        """
        self._until = self._monotonic() + wall_s
        if not self._held.is_set():
            await self._listens()
            await self._beat()
            self._held.set()

    def drop(self) -> None:
        """No more beats: nothing is held."""
        self._until = 0.0
        self._held.clear()

    async def run(self) -> None:
        """Beat while something is held, until cancelled."""
        while True:
            await self._held.wait()
            due = self._monotonic() + self._every_s
            while due < self._until:
                await asyncio.sleep(max(0.0, due - self._monotonic()))
                if self._held.is_set():
                    await self._beat_or_miss()
                due = max(due + self._every_s, self._monotonic())
            self._held.clear()

    async def _beat_or_miss(self) -> None:
        try:
            await self._beat()
        except (LinkError, PointError) as error:
            # The unit falls back by itself if this lasts; the next refresh reads it back.
            _log.warning("heartbeat_missed", unit=self._unit.number, error=str(error))

    async def _listens(self) -> None:
        """The unit takes a heartbeat and lets itself be driven; go on from the count it shows."""
        points = await self._unit.read(self._model, COMMAND)
        shown = points.get(self._point)
        if not isinstance(shown, int):
            raise PointError(f"the unit takes no heartbeat: {self._point} is not implemented")
        if points.get("LocRemCtl") == _LOCAL:
            raise SunSpecError("the unit is in local control (715 LocRemCtl): set it to remote")
        self._count = shown

    async def _beat(self) -> None:
        self._count = (self._count + 1) % self._wrap
        beat = await self._unit.prepare(self._model, {self._point: self._count})
        await self._unit.send(beat)
