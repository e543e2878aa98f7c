"""Talks to the adapters for the conductor, and journals every answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import structlog

from gateway.observability.metrics import Metrics
from gateway.stages.dispatch.held import Held
from gateway.stages.dispatch.outcomes import OutcomeJournal
from gateway.store.setpoints import SetpointState, state_of
from marketplace_core.dispatch.setpoint import (
    Applied,
    ReadBack,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
)
from marketplace_core.errors import DeviceError
from marketplace_core.ports import Clock, DeviceAdapter

_MATCH_KW: Final = 0.05
"""A read-back this near to the setpoint is the setpoint (registers are scaled integers)."""
Answered = Callable[[Sequence[Held]], None]
"""Hears of setpoints that are dealt with while others of their group are waited for."""


def unheard(_answered: Sequence[Held]) -> None:
    """Nobody waits for the first of a group."""


_log = structlog.get_logger(__name__)


class Driver:
    """One method for each thing that is asked of devices."""

    def __init__(
        self,
        adapters: Mapping[str, DeviceAdapter],
        *,
        journal: OutcomeJournal,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """`adapters` by protocol."""
        self._adapters = adapters
        self._journal = journal
        self._clock = clock
        self._metrics = metrics

    async def send(
        self, group: Sequence[Held], answered: Answered = unheard, superseded: Sequence[Held] = ()
    ) -> None:
        """Send setpoints for the first time: commit the intent, then all protocols at once."""
        setpoints = [held.setpoint for held in group]
        await self._journal.issued(setpoints, [held.setpoint.id for held in superseded])
        for held in group:
            held.state = SetpointState.ISSUED
        at = self._clock.now()
        _log.info("setpoints_issued", devices=len(setpoints))
        try:
            await self._issue(group, answered)
        finally:  # counting comes after what is urgent
            self._measure_lateness(group, at)

    async def refresh(self, group: Sequence[Held], _answered: Answered = unheard) -> None:
        """Renew the lease of setpoints in force; what fails is journalled once it lapsed."""
        for held in group:
            lapsed = self._clock.monotonic() >= held.lease_ends
            outcome = (await self._ask([held]))[0]
            self._metrics.lease_refreshes.labels(outcome=state_of(outcome).value).inc()
            if isinstance(outcome, Applied):
                if lapsed:  # it fell back meanwhile: what it does is judged from here on
                    await self._journal.outcomes([held.setpoint], [outcome])
                held.renew(self._clock, _lease(held, outcome))
            elif self._clock.monotonic() >= held.lease_ends:
                await self._record([held], [outcome])
            else:
                held.retry_at = self._soon(held)

    async def resolve(self, group: Sequence[Held], answered: Answered = unheard) -> None:
        """Find out where a setpoint stands that may or may not be in force: read back first."""
        for held in group:
            try:
                answer = await self._adapter(held).read_back(held.setpoint.device_id)
            except DeviceError as error:
                _log.info("read_back_failed", device=held.setpoint.device_id, error=str(error))
                held.retry_at = self._soon(held)
                continue
            in_force = _in_force(answer, held)
            if not in_force and held.state is SetpointState.UNCONFIRMED:
                held.retry_at = self._soon(held)
                continue
            _log.info("device_read_back", device=held.setpoint.device_id, in_force=in_force)
            if in_force:
                await self._adopt(held, answer)
            else:
                await self._issue([held], answered)

    async def end(self, held: Held, *, release: bool) -> None:
        """Close a setpoint whose time is over; return the device to its fallback."""
        setpoint = held.setpoint
        if held.state in {SetpointState.PLANNED, SetpointState.ISSUED}:
            reason = "its time passed before it was confirmed; it is not repeated"
            if held.state is SetpointState.PLANNED:
                reason, release = "it ended before it was sent", False
            await self._record([held], [self._unconfirmed(setpoint, reason)])
        if held.state is SetpointState.REFUSED:
            return
        if release:
            outcome = await self._adapter(held).release(
                setpoint.device_id, order_id=setpoint.order_id, revision=setpoint.revision
            )
            _log.info("device_released", device=setpoint.device_id, outcome=state_of(outcome).value)
        if held.state is SetpointState.APPLIED:
            await self._journal.released(setpoint)

    async def _issue(self, group: Sequence[Held], answered: Answered) -> None:
        by_protocol: dict[str, list[Held]] = {}
        for held in group:
            by_protocol.setdefault(held.profile.protocol, []).append(held)
        async with asyncio.TaskGroup() as tasks:
            for part in by_protocol.values():
                tasks.create_task(self._issue_part(part, answered))

    async def _issue_part(self, group: Sequence[Held], told: Answered) -> None:
        held_by_id = {held.setpoint.id: held for held in group}
        adapter = self._adapter(group[0])
        async for outcomes in adapter.issue([held.setpoint for held in group]):
            answered = [held_by_id.pop(outcome.setpoint_id) for outcome in outcomes]
            await self._record(answered, outcomes)
            told(answered)

    async def _ask(self, group: list[Held]) -> list[SetpointOutcome]:
        answers: list[SetpointOutcome] = []
        async for outcomes in self._adapter(group[0]).issue([held.setpoint for held in group]):
            answers.extend(outcomes)
        return answers

    async def _adopt(self, held: Held, answer: ReadBack) -> None:
        outcome = Applied(
            setpoint_id=held.setpoint.id,
            device_id=held.setpoint.device_id,
            at=answer.at,
            read_back_kw=answer.setpoint_kw,
            lease_remaining_s=answer.lease_remaining_s,
        )
        await self._record([held], [outcome])
        if held.retry_at < math.inf:
            held.retry_at = self._clock.monotonic()  # nobody renewed its lease meanwhile

    async def _record(self, group: Sequence[Held], outcomes: Sequence[SetpointOutcome]) -> None:
        changed = [
            (held, outcome)
            for held, outcome in zip(group, outcomes, strict=True)
            if state_of(outcome) is not held.state
        ]
        if changed:
            await self._journal.outcomes(
                [held.setpoint for held, _ in changed], [outcome for _, outcome in changed]
            )
        for held, outcome in zip(group, outcomes, strict=True):
            held.state = state_of(outcome)
            if isinstance(outcome, Applied):
                held.renew(self._clock, _lease(held, outcome))
            else:
                held.retry_at = self._soon(held)

    def _adapter(self, held: Held) -> DeviceAdapter:
        return self._adapters[held.profile.protocol]

    def _measure_lateness(self, group: Sequence[Held], at: datetime) -> None:
        observe = self._metrics.lateness.observe
        for held in group:
            late = (at - max(held.send_at, held.since)).total_seconds()
            observe(max(0.0, self._clock.wall_seconds(late)))

    def _soon(self, held: Held) -> float:
        """When to try again: a tenth of the lease, but never more often than twice a second."""
        wall = self._clock.wall_seconds(held.setpoint.lease_s / 10)
        return self._clock.monotonic() + max(0.5, wall)

    def _unconfirmed(self, setpoint: Setpoint, reason: str) -> Unconfirmed:
        return Unconfirmed(
            setpoint_id=setpoint.id,
            device_id=setpoint.device_id,
            at=self._clock.now(),
            reason=reason,
        )


def _in_force(answer: ReadBack, held: Held) -> bool:
    if not answer.active:
        return False
    if answer.setpoint_id is not None:
        return answer.setpoint_id == held.setpoint.id
    if answer.setpoint_kw is None:
        return False
    # A device with steps holds the step below what it was asked for.
    off = abs(answer.setpoint_kw - held.setpoint.power_kw)
    return off <= _MATCH_KW + held.profile.step_kw


def _lease(held: Held, outcome: Applied) -> float:
    if outcome.lease_remaining_s is None:
        return held.setpoint.lease_s
    return outcome.lease_remaining_s
