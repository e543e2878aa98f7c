"""Journalling a street fact together with the order state that it changes."""

from __future__ import annotations

from gateway.store.market import OrderRow, order_by_id, set_order_state
from gateway.store.writer import Transaction
from marketplace_core.dispatch.lifecycle import advance
from marketplace_core.events import OrderAwarded, StreetFact


def record_fact(transaction: Transaction, fact: StreetFact) -> OrderRow:
    """Append a fact to its order's stream and move the order on; return the order as it was."""
    row = order_by_id(transaction.connection, fact.order_id)
    calls = fact.calls if isinstance(fact, OrderAwarded) else None
    state = advance(row.state, type(fact), fact.revision)
    set_order_state(transaction.connection, fact.order_id, state, calls)
    transaction.append(fact.order_id, fact)
    return row
