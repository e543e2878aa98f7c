"""Plan: contract kilowatts become each device's kilowatts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from gateway.live import Live
from gateway.store.facts import record_fact
from gateway.store.journal import read_streams
from gateway.store.market import contract_by_id, devices_of, is_stopped, order_by_id
from gateway.store.plans import others_beside
from gateway.store.setpoints import served_seconds
from gateway.store.writer import Transaction
from marketplace_core.dispatch.others import Others
from marketplace_core.dispatch.planner import DeviceState, plan, replan
from marketplace_core.dispatch.sharing import Fairness, Sharing
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

    def __init__(
        self,
        live: Live,
        fairness: Fairness = Fairness.PROPORTIONAL,
        *,
        looks_back: timedelta = timedelta(days=30),
    ) -> None:
        """`looks_back`: span of former use that `Fairness.ROTATE` evens out."""
        self._live = live
        self._fairness = fairness
        self._looks_back = looks_back

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
        sharing = self._sharing(transaction, record, fleet)
        if fact.revision > 0:
            planned = self._again(fact, fleet, others, sharing, transaction)
        else:
            planned = plan(order, fact.calls, fleet, others=others, sharing=sharing)
        record_fact(transaction, planned)

    def _again(
        self,
        fact: OrderAwarded,
        fleet: dict[str, list[DeviceState]],
        others: Others,
        sharing: Sharing,
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
            others=others, sharing=sharing,
        )  # fmt: skip

    def _sharing(
        self, transaction: Transaction, record: Record, fleet: Mapping[str, list[DeviceState]]
    ) -> Sharing:
        """How shares are found: by what the profiles say, or by what devices were used for."""
        profiles = (state.profile for states in fleet.values() for state in states)
        match self._fairness:
            case Fairness.ROTATE:
                since = record.at - self._looks_back
                served = served_seconds(transaction.connection, since, apart_from=record.stream)
                return Sharing(self._fairness, ranks=served)
            case Fairness.PRIORITY:
                return Sharing(self._fairness, ranks={p.device_id: p.rank for p in profiles})
            case _:
                weights = {p.device_id: p.weight for p in profiles if p.weight != 1.0}
                return Sharing(self._fairness, weights=weights)

    def _devices(self, transaction: Transaction, contract_id: str) -> list[DeviceState]:
        contract = contract_by_id(transaction.connection, contract_id)
        return self._live.devices(devices_of(transaction.connection, contract.assets))
