"""Journalling what was sent and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gateway.observability.metrics import Metrics
from gateway.stages.dispatch.stage import EMITS
from gateway.store.facts import record_fact
from gateway.store.setpoints import SetpointState, record_outcomes, set_states, state_of
from gateway.store.writer import Transaction, Writer
from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.events import (
    SetpointsApplied,
    SetpointsIssued,
    SetpointsRefused,
    SetpointsUnconfirmed,
    SetpointsUnreachable,
    StreetFact,
)

OrderKey = tuple[str, int]
"""Order id and revision."""


class OutcomeJournal:
    """Writes setpoint facts, one per order and kind, in one transaction per batch."""

    def __init__(self, writer: Writer, metrics: Metrics) -> None:
        self._writer = writer
        self._metrics = metrics

    async def issued(self, setpoints: Sequence[Setpoint], superseded: Sequence[str] = ()) -> None:
        """Commit that setpoints are about to be sent; only then may they go on the wire.

        `superseded` are ids of earlier setpoints that they stand in for.
        """
        by_order: dict[OrderKey, list[Setpoint]] = {}
        for setpoint in setpoints:
            by_order.setdefault((setpoint.order_id, setpoint.revision), []).append(setpoint)

        def work(transaction: Transaction) -> None:
            for (order_id, revision), group in by_order.items():
                fact = SetpointsIssued(order_id=order_id, revision=revision, setpoints=tuple(group))
                record_fact(transaction, fact)
                ids = [setpoint.id for setpoint in group]
                set_states(transaction.connection, ids, SetpointState.ISSUED)
            set_states(transaction.connection, superseded, SetpointState.SUPERSEDED)

        await self._writer.transact(work, emits=EMITS)
        self._metrics.setpoints.labels(outcome="issued").inc(len(setpoints))

    async def outcomes(
        self, setpoints: Sequence[Setpoint], outcomes: Sequence[SetpointOutcome]
    ) -> None:
        """Commit what became of setpoints."""
        order_of = {s.id: (s.order_id, s.revision) for s in setpoints}
        by_order: dict[OrderKey, list[SetpointOutcome]] = {}
        for outcome in outcomes:
            by_order.setdefault(order_of[outcome.setpoint_id], []).append(outcome)

        def work(transaction: Transaction) -> None:
            for (order_id, revision), group in by_order.items():
                for fact in _facts(order_id, revision, group):
                    record_fact(transaction, fact)
            record_outcomes(transaction.connection, outcomes)

        await self._writer.transact(work, emits=EMITS)
        for state, count in Counter(map(state_of, outcomes)).items():
            self._metrics.setpoints.labels(outcome=state.value).inc(count)

    async def released(self, setpoint: Setpoint) -> None:
        """Commit that a setpoint's time is over and its device is back at its fallback."""
        await self._writer.transact(
            lambda tx: set_states(tx.connection, [setpoint.id], SetpointState.RELEASED)
        )


def _facts(order_id: str, revision: int, outcomes: Sequence[SetpointOutcome]) -> list[StreetFact]:
    applied = tuple(o for o in outcomes if isinstance(o, Applied))
    refused = tuple(o for o in outcomes if isinstance(o, Refused))
    unreachable = tuple(o for o in outcomes if isinstance(o, Unreachable))
    unconfirmed = tuple(o for o in outcomes if isinstance(o, Unconfirmed))
    facts: list[StreetFact] = []
    if applied:
        facts.append(SetpointsApplied(order_id=order_id, revision=revision, outcomes=applied))
    if refused:
        facts.append(SetpointsRefused(order_id=order_id, revision=revision, outcomes=refused))
    if unreachable:
        facts.append(
            SetpointsUnreachable(order_id=order_id, revision=revision, outcomes=unreachable)
        )
    if unconfirmed:
        facts.append(
            SetpointsUnconfirmed(order_id=order_id, revision=revision, outcomes=unconfirmed)
        )
    return facts
