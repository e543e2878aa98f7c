"""Plan: contract kilowatts become each device's kilowatts."""

from __future__ import annotations

from gateway.live import Live
from gateway.store.facts import record_fact
from gateway.store.journal import read_streams
from gateway.store.market import contract_by_id, devices_of, is_stopped, order_by_id
from gateway.store.plans import others_beside
from gateway.store.writer import Transaction
from marketplace_core.dispatch.others import Others
from marketplace_core.dispatch.planner import DeviceState, plan, replan
from marketplace_core.events import (
    OrderAwarded,
    OrderFact,
    OrderInfeasible,
    OrderPlanned,
    OrderRevised,
)
from marketplace_core.ports import Record

CONSUMES: frozenset[type[OrderFact]] = frozenset({OrderAwarded})
EMITS: frozenset[type[OrderFact]] = frozenset({OrderPlanned, OrderInfeasible})


class Plan:
    """Allocates each call over the devices of its contract's assets."""

    name = "plan"
    consumes = CONSUMES
    emits = EMITS

    def __init__(self, live: Live) -> None:
        self._live = live

    def handle(self, record: Record, transaction: Transaction) -> None:
        """Turn calls into allocations, or say that nothing can be delivered."""
        fact = record.fact
        if not isinstance(fact, OrderAwarded):
            return
        if is_stopped(transaction.connection, fact.order_id):
            return
        fleet = {
            call.contract_id: self._devices(transaction, call.contract_id) for call in fact.calls
        }
        order = order_by_id(transaction.connection, fact.order_id).order
        others = others_beside(transaction.connection, order.id, order.interval, record.at)
        if fact.revision > 0:
            record_fact(transaction, self._again(fact, fleet, others, transaction))
        else:
            record_fact(transaction, plan(order, fact.calls, fleet, others=others))

    def _again(
        self,
        fact: OrderAwarded,
        fleet: dict[str, list[DeviceState]],
        others: Others,
        transaction: Transaction,
    ) -> OrderPlanned | OrderInfeasible:
        facts = [record.fact for record in read_streams(transaction.connection, [fact.order_id])]
        asked = next(
            each for each in reversed(facts)
            if isinstance(each, OrderRevised) and each.revision == fact.revision
        )  # fmt: skip
        in_force = next(each for each in reversed(facts) if isinstance(each, OrderPlanned))
        return replan(
            asked.order, fact.calls, fleet, previous=in_force.allocations, short=asked.short,
            others=others,
        )  # fmt: skip

    def _devices(self, transaction: Transaction, contract_id: str) -> list[DeviceState]:
        contract = contract_by_id(transaction.connection, contract_id)
        return self._live.devices(devices_of(transaction.connection, contract.assets))
