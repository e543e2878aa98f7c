"""Settle: statement lines and their double entries, once every window of an order is verified."""

from __future__ import annotations

from collections.abc import Callable

from gateway.store.delivery import lines_of, postings_of, record_settlement, windows_of
from gateway.store.facts import record_fact
from gateway.store.market import contract_by_id, order_by_id
from gateway.store.writer import Transaction
from marketplace_core.dispatch.lifecycle import OrderState
from marketplace_core.events import DeliveryVerified, OrderFact, OrderSettled
from marketplace_core.ports import Record
from marketplace_core.settlement.booking import settle

CONSUMES: frozenset[type[OrderFact]] = frozenset({DeliveryVerified})
EMITS: frozenset[type[OrderFact]] = frozenset({OrderSettled})


class Settle:
    """Books an order; late data books it again under the next version."""

    name = "settle"
    consumes = CONSUMES
    emits = EMITS

    def __init__(self, new_id: Callable[[str], str]) -> None:
        self._new_id = new_id

    def handle(self, record: Record, transaction: Transaction) -> None:
        """Settle the order of a verified delivery when nothing of it is outstanding."""
        fact = record.fact
        if not isinstance(fact, DeliveryVerified):
            return
        connection = transaction.connection
        row = order_by_id(connection, fact.order_id)
        if row.state is OrderState.SETTLED:
            return  # booked together with another window that was verified at the same time
        order = row.order
        deliveries = [
            window.delivery for window in windows_of(connection, fact.order_id)
            if window.period.start < order.interval.end
        ]  # fmt: skip
        done = [delivery for delivery in deliveries if delivery is not None]
        if len(done) < len(deliveries):
            return
        ids = sorted({delivery.contract_id for delivery in done})
        contracts = {contract_id: contract_by_id(connection, contract_id) for contract_id in ids}
        booked = lines_of(connection, order.id)
        settled = settle(
            order,
            contracts,
            done,
            version=max((line.version for line in booked), default=0) + 1,
            new_id=self._new_id,
            previous=postings_of(connection, order.id),
        )
        record_settlement(connection, settled, {c.id: c.buyer for c in contracts.values()})
        record_fact(transaction, settled)
