"""Leaving a device as it was, however long its link takes to come back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from adapters.commissioning import Bench, Write
from gateway.edge.judging import Restored
from gateway.edge.watching import Pace
from marketplace_core.errors import FlexwayError

_PAUSE_S: Final = 1.0


class InForce:
    """What the test last put in force, as far as is known."""

    def __init__(self, power_kw: float | None = None) -> None:
        self.power_kw = power_kw
        """None = nothing."""
        self.ends_at = math.inf
        """When the device's own timer ends it; inf = it has none."""
        self.seen = False
        """Whether that timer was seen to end anything before."""

    def lease(self, ends_at: float) -> None:
        """Its timer was written anew."""
        self.ends_at = ends_at

    def words(self, now: float) -> str:
        """What is in force, and what the device will do by itself."""
        if self.power_kw is None:
            return "nothing of the test is known to be in force; its registers were not checked"
        what = f"{self.power_kw:.3g} kW may be in force"
        if math.isinf(self.ends_at):
            return f"{what}, without a timer: it stays until somebody disables it at the device"
        left = max(0.0, self.ends_at - now)
        if self.seen:
            return f"{what}; its own timer ends it within {left:.0f} s, as it was seen to do"
        return (
            f"{what}; its own timer was set to end it within {left:.0f} s, which it was not seen "
            "to do: check the device"
        )


async def restore(
    bench: Bench, before: Sequence[Write], held: InForce, *, pace: Pace, seconds: float,
    told: Callable[[str, float], None],
) -> tuple[Restored, int]:  # fmt: skip
    """Release and write back what differs, again and again for so many seconds.

    Returns how it was left, and the write requests that it took.
    """
    deadline = pace.now() + seconds
    requests, released = 0, False
    while True:
        try:
            if not released:
                stop = await bench.encode(bench.stop())
                requests += len(stop)
                await bench.send(stop)
                released = not (await bench.standing()).active
            if released:
                differs, wrote = await _put_back(bench, before)
                return Restored(released=True, differs=differs), requests + wrote
            why = "it still says that a setpoint is in force"
        except FlexwayError as error:
            why = str(error)
        left = deadline - pace.now()
        if left <= 0 and released:
            return Restored(released=True, differs=(f"not written back: {why}",)), requests
        if left <= 0:
            words = held.words(pace.now())
            return Restored(released=False, in_force=f"{words} ({why})"), requests
        told(f"{'registers ' if released else ''}NOT RESTORED YET: {why}; trying again", left)
        bench.reconnect()
        await pace.sleep(min(_PAUSE_S, left))


async def _put_back(bench: Bench, before: Sequence[Write]) -> tuple[tuple[str, ...], int]:
    """Write what differs, in the order of the test (enable last); what still does, in words."""
    now = await bench.registers(before)
    changed = [old for old, new in zip(before, now, strict=True) if old.words != new.words]
    await bench.send(changed)
    after = await bench.registers(before)
    return tuple(
        f"{old.point} holds {list(new.words)} instead of {list(old.words)}"
        for old, new in zip(before, after, strict=True) if old.words != new.words
    ), len(changed)  # fmt: skip
