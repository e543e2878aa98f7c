"""Award: merit order over the contracts."""

from __future__ import annotations

from gateway.store.facts import record_fact
from gateway.store.market import contracts_for, orders_overlapping
from gateway.store.writer import Transaction
from marketplace_core.dispatch.merit_order import award
from marketplace_core.events import OrderAwarded, OrderFact, OrderRejected, OrderSubmitted
from marketplace_core.ports import Record
from marketplace_core.units import Kw

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
        called: dict[str, Kw] = {}
        for other in orders_overlapping(connection, order.need_id, order.interval):
            for call in other.calls if other.order.id != order.id else ():
                called[call.contract_id] = Kw(called.get(call.contract_id, 0.0) + call.kw)
        outcome = award(order, contracts_for(connection, order.need_id), called)
        record_fact(transaction, outcome)
