"""The two halves of the command on one connection: find out and plan, then run and restore."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click
import msgspec

from adapters.commissioning import RESTARTS, Nameplate, Rating, Write
from adapters.modbus.bench import SunSpecBench
from adapters.modbus.offer import ControlName
from adapters.modbus.sunspec import SunSpecError
from adapters.modbus.survey import Report
from gateway.cli.commission.target import Target, control_of, rating_of
from gateway.edge.judging import Findings
from gateway.edge.plan import Plan, Unfit, Wanted, choose
from gateway.edge.trial import Progress, Trial
from gateway.edge.watching import Pace

_SAMPLES = 4
_SAMPLE_S = 0.5
"""Seconds between two samples of what its power does by itself."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a service that is stopped, a terminal that is closed: each restores the device."""
_ROOM = 0.5
"""Share of the step by which its power may have moved since the plan was shown."""


class Ready(msgspec.Struct, frozen=True):
    """A device that may be tested, and how."""

    found: Report
    nameplate: Nameplate
    plan: Plan
    phases: dict[str, Sequence[Write]]


async def prepare(
    bench: SunSpecBench, target: Target, wanted: Wanted, pace: Pace, *,
    control: ControlName | None, rating_kw: float | None,
) -> Ready | Unfit:  # fmt: skip
    """Ask the device what it is and plan the test; reads only.

    Raises LinkError and SunSpecError as the device answers, click.ClickException for what the
    person has to say first.
    """
    found = await bench.meet()
    if found.problem:
        raise SunSpecError(found.problem)
    rating = rating_of(target, rating_kw, await bench.rating(), found.role)
    await bench.take(control_of(target, control, found), found, rating)
    plan = await observe(bench, rating, wanted, pace)
    if isinstance(plan, Unfit):
        return plan
    return Ready(found, await bench.nameplate(), plan, await _phases(bench, plan))


async def observe(bench: SunSpecBench, rating: Rating, wanted: Wanted, pace: Pace) -> Plan | Unfit:
    """The plan for what the device does now."""
    if obstacle := await bench.obstacle():
        return Unfit(
            f"it cannot follow now: {obstacle}", "switch it on, or to remote; wait until it runs"
        )
    samples = []
    for _ in range(_SAMPLES):
        samples.append(await bench.sample())
        await pace.sleep(_SAMPLE_S)
    return choose(bench.offered, rating, samples, await bench.standing(), wanted)


async def still(bench: SunSpecBench, planned: Plan, pace: Pace) -> Plan | Unfit:
    """The plan anew, after somebody took their time to agree to it."""
    plan = await observe(bench, planned.rating, planned.wanted, pace)
    if isinstance(plan, Unfit):
        return plan
    if abs(plan.target_kw - planned.target_kw) > _ROOM * abs(planned.step_kw):
        return Unfit(
            f"its power is {plan.reference_kw:.3g} kW by now: what was shown does not hold",
            "start anew, at a steadier moment",
        )
    return plan


async def run(
    bench: SunSpecBench, plan: Plan, pace: Pace, report: Callable[[Progress], None]
) -> Findings:
    """Run the test; whatever ends it, the device is restored."""
    trial = Trial(bench, plan, pace, report)
    with _interrupting(trial, report):
        return await trial.run()


async def _phases(bench: SunSpecBench, plan: Plan) -> dict[str, Sequence[Write]]:
    timer_s = plan.wanted.timer_s if plan.offered.timer else 0
    phases: dict[str, Sequence[Write]] = {
        "step": await bench.encode(bench.start(plan.target_kw, timer_s))
    }
    for on in RESTARTS if timer_s else ():
        points = bench.renew(on, plan.target_kw, timer_s)
        phases[f"step again, and half-way refreshed by its {on}"] = await bench.encode(points)
    phases["release"] = await bench.encode(bench.stop())
    return phases


@contextmanager
def _interrupting(trial: Trial, report: Callable[[Progress], None]) -> Iterator[None]:
    """Signals end the test, and never its restoration."""

    def interrupted() -> None:
        if trial.interrupt():
            report(Progress("interrupted: restoring the device", lasting=True))
        else:
            report(Progress("the device is being restored: this is not interrupted", lasting=True))

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupted)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def refused(unfit: Unfit) -> click.ClickException:
    """Why it is not tested, and what to do."""
    return click.ClickException(f"not tested: {unfit.reason}\n  -> {unfit.remedy}")
