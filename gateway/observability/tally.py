"""Counting orders by the facts that were committed, so that a repeat is not counted twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.observability.metrics import Metrics
from marketplace_core.events import (
    OrderAwarded,
    OrderInfeasible,
    OrderPlanned,
    OrderRejected,
    OrderSettled,
    OrderStopped,
    OrderSubmitted,
)
from marketplace_core.ports import Record

_STATES: Final[dict[type[object], str]] = {
    OrderSubmitted: "submitted",
    OrderRejected: "rejected",
    OrderAwarded: "awarded",
    OrderPlanned: "planned",
    OrderInfeasible: "infeasible",
    OrderSettled: "settled",
    OrderStopped: "stopped",
}


def count_facts(metrics: Metrics, records: Iterable[Record]) -> None:
    """Count the order facts among committed records; a corrected settlement counts once."""
    for record in records:
        state = _STATES.get(type(record.fact))
        corrected = isinstance(record.fact, OrderSettled) and record.fact.version > 1
        if state is not None and not corrected:
            metrics.orders.labels(state=state).inc()
