"""What `flexway commission` shows: the plan before, the findings after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from adapters.commissioning import Nameplate, Write
from gateway.edge.judging import Findings, Record
from gateway.edge.plan import Plan

_HEARTBEAT = "715 ControllerHb counted up each second, then stopped"


def plan_table(who: Nameplate, where: str, plan: Plan, phases: dict[str, Sequence[Write]]) -> str:
    """Everything that would be written, in which order, for how long, and the worst of it."""
    return "\n".join(_plan(who, where, plan, phases))


def _plan(
    who: Nameplate, where: str, plan: Plan, phases: dict[str, Sequence[Write]]
) -> Iterator[str]:
    yield _head(f"{who.manufacturer} {who.model}, serial {who.serial}, firmware {_or(who.version)}")
    yield f"    where       {where}"
    yield f"    control     {plan.offered.control} ({plan.offered.kind})"
    soc = "" if plan.soc_percent is None else f", state of charge {plan.soc_percent:.0f} %"
    yield f"    now         {_kw(plan.reference_kw)}{soc}"
    yield (
        f"    step        {plan.step_kw:+.3g} kW, to {_kw(plan.target_kw)}; rated "
        f"{plan.rating.inject_kw:g} kW out, {plan.rating.absorb_kw:g} kW in"
    )
    yield f"    takes       {plan.most_s:.0f} s at most while it can be reached"
    yield (
        f"    worst case  {abs(plan.step_kw):.3g} kW for that long: {plan.worst_kwh:.4f} kWh. If "
        "this computer or the link dies meanwhile, it stays at the step until its own timer "
        f"({_timer(plan)}) ends it, if that works: this is what is tested"
    )
    for note in plan.notes:
        yield f"    note        {note}"
    yield _head("writes, in this order")
    for phase, writes in phases.items():
        yield f"    {phase}"
        for write in writes:
            yield f"        {write.point:<26} at {write.address}: {_words(write)}"
    if plan.offered.beats:
        yield f"    heartbeat: {_HEARTBEAT}"
    yield "    at the end, and whatever ends it: released, and every register as it was before"


def findings_table(record: Record) -> str:
    """What was measured, and what may be claimed of it."""
    return "\n".join([*_findings(record.findings), *_verdict(record)])


def _findings(found: Findings) -> Iterator[str]:
    yield _head("measured")
    if found.ended != "done":
        yield f"    ended       {found.ended}: {found.problem}"
    if found.read_back_s is not None:
        yield f"    read back   after {found.read_back_s:.2f} s: {_kw(found.read_back_kw)}"
    power = found.power
    if power is not None:
        response = "" if power.response_s is None else f", there after {power.response_s:.1f} s"
        yield (
            f"    power       {power.following}: {_kw(power.reference_kw)} -> "
            f"{_kw(power.settled_kw)} (asked {_kw(power.asked_kw)}{response})"
        )
    yield from _leases(found)
    if found.release is not None:
        power_back = {True: ", its power came back", False: ", ITS POWER STAYED", None: ""}
        reads = "reads back" if found.release.reads_back else "DOES NOT READ BACK"
        yield f"    release     {reads}{power_back[found.release.power_returned]}"
    yield f"    writes      {found.requests}"
    yield from _restored(found)


def _leases(found: Findings) -> Iterator[str]:
    timer = found.timer
    if timer is not None:
        counts = {True: "counts down", False: "DOES NOT COUNT DOWN", None: "does not tell"}
        after = f"DID NOT REVERT within {timer.waited_s:.0f} s"
        if timer.reverted_after_s is not None:
            after = f"reverted after {timer.reverted_after_s:.1f} s"
            after += f" (±{timer.uncertain_s:.1f}) to {_kw(timer.power_after_kw)}"
        if timer.power_returned is False:
            after += ", ITS POWER STAYED"
        yield f"    timer       {timer.written_s} s written, {counts[timer.counts_down]}, {after}"
    for on, restarted in found.restarts.items():
        restarts = "restarts" if restarted else "does not restart"
        yield f"    refresh     writing the {on} again {restarts} it"
    beat = found.heartbeat
    if beat is not None:
        fell = f"did not fall back within {beat.waited_s:.0f} s"
        if beat.fell_back_after_s is not None:
            fell = f"fell back after {beat.fell_back_after_s:.1f} s to {_kw(beat.fallback_kw)}"
        yield f"    heartbeat   {'held' if beat.held else 'NOT HELD'} while it beat, {fell}"


def _restored(found: Findings) -> Iterator[str]:
    restored = found.restored
    if restored is None:
        yield "    restored    nothing was written"
    elif restored.whole:
        yield "    restored    every register is as it was"
    elif restored.released:
        yield click.style(f"    NOT AS IT WAS  {'; '.join(restored.differs)}", "red", bold=True)
    else:
        yield click.style(f"    NOT RESTORED  {restored.in_force}", "red", bold=True)


def _verdict(record: Record) -> Iterator[str]:
    verdict = record.verdict
    yield _head(f'lease = "{verdict.lease}"') + f": {verdict.because}"
    if verdict.lease == "none":
        yield "    it is refused for unattended dispatch"
    elif verdict.fallback_kw is None:
        left = "NO LIMIT" if record.offered.kind == "limit" else "its own behaviour"
        yield f"    afterwards  {left}"
    for remark in verdict.remarks:
        yield f"    remark      {remark}"


def _head(text: str) -> str:
    return click.style(text, bold=True)


def _or(text: str) -> str:
    return text or "not said"


def _kw(power: float | None) -> str:
    return "not known" if power is None else f"{power:.3f} kW"


def _timer(plan: Plan) -> str:
    return f"{plan.wanted.timer_s} s" if plan.offered.timer else "it has none"


def _words(write: Write) -> str:
    value = "" if write.value is None else f"{write.value:g} = "
    return f"{value}{' '.join(f'0x{word:04X}' for word in write.words)}"
