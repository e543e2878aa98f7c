"""The safe test: a small step, watched until the device ends it by itself, then restored.

Every register that is written is read before and compared after. Whatever ends the test (its
end, an interruption, a lost link, an error), the device is released and restored in a task of
its own, which no cancellation of the test reaches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from adapters.commissioning import RESTARTS, Bench, Restart, Standing, Write
from gateway.edge.judging import Beat, Findings, Release, Timer, followed, returned
from gateway.edge.plan import Plan
from gateway.edge.restoring import InForce, restore
from gateway.edge.watching import Look, Pace, StoppedError, Watch
from marketplace_core.errors import FlexwayError

_MATCH_KW: Final = 0.05
"""Registers are scaled integers: a read-back this near is what was written."""


class Progress(msgspec.Struct, frozen=True):
    """Where the test stands."""

    step: str
    left_s: float | None = None
    """Seconds at most until this step is over."""
    lasting: bool = False
    """Worth keeping on the screen."""


Report = Callable[[Progress], None]


class Trial:
    """One test of one device."""

    def __init__(self, bench: Bench, plan: Plan, pace: Pace, report: Report) -> None:
        """`report` hears of each step; it must not raise."""
        self.findings = Findings()
        self._bench = bench
        self._plan = plan
        self._pace = pace
        self._report = report
        self._step = ""
        self._watch = Watch(bench, plan, pace, self._tick)
        self._work: asyncio.Task[None] | None = None
        self._held = InForce()

    def interrupt(self) -> bool:
        """End the test now and restore; False while that is being done already."""
        if self._work is not None and self._work.done():
            return False
        self.findings.ended, self.findings.problem = "interrupted", "it was interrupted"
        return True if self._work is None else self._work.cancel()

    async def run(self) -> Findings:
        """Test and restore.

        Raises FlexwayError when the registers cannot be read first: nothing was written then.
        """
        before = await self._before()
        if self.findings.ended == "interrupted":
            return self.findings  # nothing was written yet
        try:
            async with asyncio.TaskGroup() as tasks:
                self._work = tasks.create_task(self._measure())
        finally:
            if self.findings.requests:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._restore(before))
        return self.findings

    async def _measure(self) -> None:
        try:
            await self._first_lease()
            if self.findings.read_back_s is None:
                return
            timer = self.findings.timer
            if timer is not None and timer.reverts:
                for on in RESTARTS:
                    await self._renewal(on)
            elif self._plan.offered.beats:
                await self._release()
                await self._heart_stops()
            await self._release()
        except StoppedError as stopped:
            self.findings.ended, self.findings.problem = stopped.ended, str(stopped)
        except FlexwayError as error:
            self.findings.ended, self.findings.problem = "link lost", str(error)

    async def _first_lease(self) -> None:
        """Step, read back, follow, and wait for the timer to end it."""
        plan, found = self._plan, self.findings
        timer_s = plan.wanted.timer_s if plan.offered.timer else 0
        # Else the fallback of a silent heart would be taken for the timer's.
        self._watch.beating = plan.offered.beats
        if plan.offered.beats:
            await self._bench.beat()
        self._says(f"step to {plan.target_kw:.3g} kW")
        began = await self._start(timer_s)
        self._says("it follows, and its timer runs" if timer_s else "it follows")
        looks: list[Look] = []
        end = began + plan.wanted.timer_s + (plan.grace_s if timer_s else 0.0)
        reverted: Look | None = None
        async for look in self._watch.until(end):
            if found.read_back_s is None and self._matches(look.standing):
                found.read_back_s = look.at - began
                found.read_back_kw = look.standing.power_kw
                self._watch.ours = True
            if not look.standing.active and found.read_back_s is not None:
                reverted = look
                break
            looks.append(look)
            if found.read_back_s is None and look.at - began > plan.settle_s:
                self._not_taken(look.standing)
                return
        if found.read_back_s is None:
            self._not_taken(looks[-1].standing)
            return
        # The power of the last look came after its registers: it may have reverted in between.
        sure = looks if reverted is None else looks[:-1]
        samples = [(look.at - began, look.power_kw) for look in sure]
        found.power = followed(samples, plan.reference_kw, plan.target_kw, plan.noise_kw)
        if timer_s:
            await self._reversion(began, looks, reverted)

    async def _reversion(self, began: float, looks: list[Look], reverted: Look | None) -> None:
        plan, power = self._plan, self.findings.power
        left = [each.standing.left_s for each in looks if each.standing.left_s is not None]
        counts = None if not left else min(left) < max(left) and max(left) > 0
        if reverted is None:
            self.findings.timer = Timer(
                written_s=plan.wanted.timer_s, counts_down=counts,
                waited_s=self._pace.now() - began,
            )  # fmt: skip
            return
        self._held = InForce()
        self._says("it reverted: does its power come back?")
        back, after = None, reverted.power_kw
        async for look in self._watch.until(self._pace.now() + plan.settle_s):
            after = look.power_kw
            back = None if power is None else returned(look.power_kw, power)
            if back is not False:
                break
        self.findings.timer = Timer(
            written_s=plan.wanted.timer_s, counts_down=counts,
            reverted_after_s=reverted.at - began,
            uncertain_s=reverted.at - looks[-1].at if looks else 0.0,
            waited_s=reverted.at - began, power_after_kw=after, power_returned=back,
        )  # fmt: skip

    async def _renewal(self, on: Restart) -> None:
        """Whether writing one point again half-way gives the whole time anew."""
        plan, timer = self._plan, self.findings.timer
        lasts = plan.wanted.timer_s * 1.0
        if timer is not None and timer.reverted_after_s is not None:
            lasts = timer.reverted_after_s
        self._says(f"does writing the {on} again restart its timer?")
        began, held = await self._start(plan.wanted.timer_s), False
        async for look in self._watch.until(began + lasts / 2):
            held = look.standing.active
        if not held:
            return  # it did not take the step this time: nothing can be said of a renewal
        points = self._bench.renew(on, plan.target_kw, plan.wanted.timer_s)
        await self._send(points)
        self._held.lease(self._pace.now() + plan.wanted.timer_s)
        margin = min(max(1.0, 0.2 * lasts), 0.4 * lasts)
        async for look in self._watch.until(began + lasts + margin):
            held = look.standing.active
            if not held:
                self._held = InForce()
                break
        self.findings.restarts[on] = held

    async def _heart_stops(self) -> None:
        """Keep the heartbeat up for a while, stop it, and wait for the fallback."""
        plan = self._plan
        self._says("heartbeat: it is kept up")
        began, held = await self._start(0), False
        async for look in self._watch.until(began + plan.beaten_s):
            held = look.standing.active
        self._watch.beating = False
        stopped = self._pace.now()
        self._says("heartbeat: it has stopped")
        fell: float | None = None
        power: float | None = None
        end = stopped + plan.wanted.heartbeat_wait_s
        async for look in self._watch.until(end):
            if not look.standing.active:
                fell = look.at - stopped
                break
        if fell is not None:
            self._held = InForce()
            async for look in self._watch.until(self._pace.now() + plan.settle_s):
                power = look.power_kw
        self.findings.heartbeat = Beat(
            held=held, fell_back_after_s=fell if held else None, fallback_kw=power,
            waited_s=self._pace.now() - stopped,
        )  # fmt: skip

    async def _release(self) -> None:
        """Let it go while it is held, and see that nothing is left of it."""
        if self.findings.release is not None:
            return
        plan, power = self._plan, self.findings.power
        if not (await self._bench.standing()).active:
            self._says("step once more, to be released")
            began = await self._start(plan.wanted.timer_s if plan.offered.timer else 0)
            lasts = min(plan.settle_s, plan.wanted.timer_s / 2)
            async for _ in self._watch.until(began + lasts):
                pass
        self._says("release")
        await self._send(self._bench.stop())
        let_go, back = False, None
        async for look in self._watch.until(self._pace.now() + plan.settle_s):
            let_go = not look.standing.active
            back = None if power is None else returned(look.power_kw, power)
            if let_go and back is not False:
                break
        if let_go:
            self._held = InForce()
        self.findings.release = Release(reads_back=let_go, power_returned=back)

    async def _start(self, timer_s: int) -> float:
        """Put the step in force; when it was written."""
        self._held = InForce(power_kw=self._plan.target_kw)
        if timer_s:
            self._held.lease(self._pace.now() + timer_s)
        await self._send(self._bench.start(self._plan.target_kw, timer_s))
        at = self._pace.now()
        if timer_s:
            self._held.lease(at + timer_s)
        return at

    async def _send(self, points: Mapping[str, float]) -> None:
        writes = await self._bench.encode(points)
        self.findings.requests += len(writes)  # before: an answer may be lost
        await self._bench.send(writes)

    async def _before(self) -> tuple[Write, ...]:
        """What stands now in every register that will be written."""
        places = [write for points in self.points() for write in await self._bench.encode(points)]
        once = {write.address: write for write in places}
        return await self._bench.registers(tuple(once.values()))

    def points(self) -> list[Mapping[str, float]]:
        """Every set of points that the test may write, in order."""
        plan, bench = self._plan, self._bench
        timer_s = plan.wanted.timer_s if plan.offered.timer else 0
        return [bench.start(plan.target_kw, timer_s), bench.stop()]

    async def _restore(self, before: tuple[Write, ...]) -> None:
        timer = self.findings.timer
        self._held.seen = timer is not None and timer.reverts
        self._says("restoring what was there before", left_s=self._plan.wanted.restore_s)
        restored, requests = await restore(
            self._bench, before, self._held, pace=self._pace, seconds=self._plan.wanted.restore_s,
            told=lambda text, left: self._report(Progress(text, left)),
        )  # fmt: skip
        self.findings.restored = restored
        self.findings.requests += requests

    def _matches(self, standing: Standing) -> bool:
        power = standing.power_kw
        near = max(_MATCH_KW, standing.step_kw)
        return standing.active and power is not None and abs(power - self._plan.target_kw) <= near

    def _not_taken(self, standing: Standing) -> None:
        self.findings.ended = "refused"
        held = "nothing" if not standing.active else f"{standing.power_kw} kW"
        self.findings.problem = (
            f"it acknowledges {self._plan.target_kw:.3g} kW, and {held} reads back"
        )

    def _says(self, step: str, left_s: float | None = None) -> None:
        self._step = step
        self._report(Progress(step, left_s, lasting=True))

    def _tick(self, left_s: float) -> None:
        self._report(Progress(self._step, left_s))
