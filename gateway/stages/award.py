"""Award: merit order over the contracts."""

from __future__ import annotations

from gateway.store.facts import record_fact
from gateway.store.market import called_by_others, contracts_for, is_stopped, order_by_id
from gateway.store.writer import Transaction
from marketplace_core.dispatch.merit_order import award, reaward
from marketplace_core.events import (
    OrderAwarded,
    OrderFact,
    OrderRejected,
    OrderRevised,
    OrderSubmitted,
)
from marketplace_core.ports import Record

CONSUMES: frozenset[type[OrderFact]] = frozenset({OrderSubmitted, OrderRevised})
EMITS: frozenset[type[OrderFact]] = frozenset({OrderAwarded, OrderRejected})


class Award:
    """Calls the cheapest contracts that are in force and not called already."""

    name = "award"
    consumes = CONSUMES
    emits = EMITS

    def handle(self, record: Record, transaction: Transaction) -> None:
        """Turn an order, or a revision of it, into calls, or into a rejection with its reason."""
        fact, connection = record.fact, transaction.connection
        if not isinstance(fact, OrderSubmitted | OrderRevised):
            return
        if is_stopped(connection, fact.order_id):
            return
        contracts = contracts_for(connection, fact.order.need_id)
        others = called_by_others(connection, fact.order)
        outcome: OrderAwarded | OrderRejected
        if isinstance(fact, OrderRevised):
            calls = order_by_id(connection, fact.order_id).calls
            outcome = reaward(fact.order, calls, contracts, others, dict(fact.missing))
        else:
            outcome = award(fact.order, contracts, others)
        record_fact(transaction, outcome)
