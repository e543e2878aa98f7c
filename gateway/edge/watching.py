"""Looking at a device again and again: its control registers and its power, side by side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

import msgspec

from adapters.commissioning import Bench, Standing
from gateway.edge.judging import Ended
from gateway.edge.plan import Plan
from marketplace_core.errors import FlexwayError

POLL_S: Final = 0.25
"""Seconds from one look to the next; on a slow line a look itself takes longer."""
_LOST_S: Final = 3.0
"""Seconds without an answer after which the link counts as lost."""
_BEAT_S: Final = 1.0
"""Seconds from one beat to the next, as SunSpec's model 715 has it."""
_TWICE: Final = 2
"""Looks in a row that say the same before it is believed."""
_SAME_KW: Final = 0.05


class Pace(Protocol):
    """The time of the test, in the device's seconds."""

    def now(self) -> float:
        """Monotonic seconds."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many."""


class WallPace:
    """The wall's seconds."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after so many."""
        await asyncio.sleep(seconds)


class Look(msgspec.Struct, frozen=True):
    """What one look found."""

    at: float
    standing: Standing
    power_kw: float


class StoppedError(FlexwayError):
    """The test ends here, and the device is restored."""

    def __init__(self, ended: Ended, message: str) -> None:
        super().__init__(message)
        self.ended = ended


class Watch:
    """Looks at one device, and stops the test when it runs away or somebody else drives it."""

    def __init__(self, bench: Bench, plan: Plan, pace: Pace, told: Callable[[float], None]) -> None:
        """`told` hears of the seconds that are left of what is being waited for."""
        self.beating = False
        """Whether the controller's heartbeat is kept up between the looks."""
        self.ours = False
        """Whether the step was read back: what else is in force is not ours."""
        self._beat_at = 0.0
        self._bench = bench
        self._plan = plan
        self._pace = pace
        self._told = told
        self._odd = self._away = 0

    async def until(self, end: float) -> AsyncIterator[Look]:
        """One look after another until `end`, at least one.

        Raises:
            StoppedError: the link is lost, another master writes, or its power runs away.
        """
        self._odd = self._away = 0
        while True:
            await self._beat()
            look = await self._look()
            self._heed(look)
            yield look
            left = end - self._pace.now()
            if left <= 0:
                return
            self._told(left)
            await self._pace.sleep(min(POLL_S, left))

    async def _beat(self) -> None:
        now = self._pace.now()
        if self.beating and now >= self._beat_at:
            self._beat_at = now + _BEAT_S
            await self._bench.beat()

    async def _look(self) -> Look:
        """One look; a lost frame or two are tried again on a new connection."""
        began = self._pace.now()
        while True:
            try:
                standing = await self._bench.standing()
                at = self._pace.now()
                sample = await self._bench.sample()
            except FlexwayError as error:
                if self._pace.now() - began >= _LOST_S:
                    raise StoppedError("link lost", f"no answer any more: {error}") from error
                self._bench.reconnect()
                await self._pace.sleep(POLL_S)
            else:
                return Look(at, standing, sample.power_kw)

    def _heed(self, look: Look) -> None:
        plan, standing = self._plan, look.standing
        foreign = (
            self.ours and standing.active and standing.power_kw is not None
            and abs(standing.power_kw - plan.target_kw) > max(_SAME_KW, standing.step_kw)
        )  # fmt: skip
        self._odd = self._odd + 1 if foreign else 0
        if self._odd >= _TWICE:
            raise StoppedError(
                "another master",
                f"{standing.power_kw:.3g} kW is in force that this test did not write: another "
                "master did, or the device itself",
            )
        far = abs(look.power_kw - plan.reference_kw) > 2 * abs(plan.step_kw) + plan.noise_kw
        driven = plan.offered.kind == "setpoint" and standing.active
        self._away = self._away + 1 if driven and far else 0
        if self._away >= _TWICE:
            raise StoppedError(
                "runaway",
                f"its power is {look.power_kw:.3g} kW: more than twice the step from "
                f"{plan.reference_kw:.3g} kW",
            )
