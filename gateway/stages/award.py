"""Award: merit order over the contracts."""

from __future__ import annotations

from gateway.store.facts import record_fact
from gateway.store.market import called_by_others, contracts_for, is_stopped
from gateway.store.writer import Transaction
from marketplace_core.dispatch.merit_order import award
from marketplace_core.events import OrderAwarded, OrderFact, OrderRejected, OrderSubmitted
from marketplace_core.ports import Record

CONSUMES: frozenset[type[OrderFact]] = frozenset({OrderSubmitted})
EMITS: frozenset[type[OrderFact]] = frozenset({OrderAwarded, OrderRejected})


class Award:
    """Calls the cheapest contracts that are in force and not called already."""

    name = "award"
    consumes = CONSUMES
    emits = EMITS

    def handle(self, record: Record, transaction: Transaction) -> None:
        """Turn a submitted order into calls, or into a rejection with its reason."""
        fact = record.fact
        if not isinstance(fact, OrderSubmitted):
            return
        order, connection = fact.order, transaction.connection
        if is_stopped(connection, order.id):
            return
        called = called_by_others(connection, order)
        outcome = award(order, contracts_for(connection, order.need_id), called)
        record_fact(transaction, outcome)
