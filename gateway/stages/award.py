"""Award: merit order over the contracts."""

from __future__ import annotations

from sqlalchemy import Connection

from gateway.store.facts import record_fact
from gateway.store.market import contracts_for, order_by_id, orders_overlapping
from gateway.store.writer import Transaction
from marketplace_core.dispatch.merit_order import award, reaward
from marketplace_core.dispatch.order import Order
from marketplace_core.events import (
    OrderAwarded,
    OrderFact,
    OrderRejected,
    OrderRevised,
    OrderSubmitted,
)
from marketplace_core.ports import Record
from marketplace_core.units import Kw

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
        outcome: OrderAwarded | OrderRejected
        match fact:
            case OrderSubmitted():
                contracts = contracts_for(connection, fact.order.need_id)
                outcome = award(fact.order, contracts, _called_by_others(connection, fact.order))
            case OrderRevised():
                contracts = contracts_for(connection, fact.order.need_id)
                calls = order_by_id(connection, fact.order_id).calls
                others = _called_by_others(connection, fact.order)
                outcome = reaward(fact.order, calls, contracts, others, dict(fact.missing))
            case _:
                return
        record_fact(transaction, outcome)


def _called_by_others(connection: Connection, order: Order) -> dict[str, Kw]:
    called: dict[str, Kw] = {}
    for other in orders_overlapping(connection, order.need_id, order.interval):
        for call in other.calls if other.order.id != order.id else ():
            called[call.contract_id] = Kw(called.get(call.contract_id, 0.0) + call.kw)
    return called
