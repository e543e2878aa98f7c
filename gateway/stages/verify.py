"""Verify: measured against the baseline that the contract names."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec

from gateway.store.delivery import record_delivery
from gateway.store.facts import record_fact
from gateway.store.journal import read_streams
from gateway.store.market import assets_by_id, contract_by_id, order_by_id, order_days
from gateway.store.readings import Readings
from gateway.store.writer import Transaction
from marketplace_core.dispatch.order import Order
from marketplace_core.events import DeliveryVerified, OrderFact, ReboundMeasured, WindowClosed
from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.ports import Record
from marketplace_core.procurement.contract import Contract
from marketplace_core.results import BaselineResult
from marketplace_core.verification.baselines import PowerHistory, compute
from marketplace_core.verification.delivery import verify
from marketplace_core.verification.windows import history_of

CONSUMES: frozenset[type[OrderFact]] = frozenset({WindowClosed})
EMITS: frozenset[type[OrderFact]] = frozenset({DeliveryVerified, ReboundMeasured})
_LOOK_BACK: Final = timedelta(days=60)
"""History handed to a baseline method; the longest look-back of the shipped rules is 45 days."""


class Verify:
    """Computes the baseline and the delivered energy of closed windows."""

    name = "verify"
    consumes = CONSUMES
    emits = EMITS

    def __init__(self, readings: Readings, grid: SettlementGrid, rebound: timedelta) -> None:
        """`rebound`: how long after an order its contracts are watched on."""
        self._readings = readings
        self._grid = grid
        self._rebound = rebound
        self._baselines: dict[tuple[str, str], BaselineResult] = {}

    def handle(self, record: Record, transaction: Transaction) -> None:
        """Turn a closed window into a verified delivery."""
        fact = record.fact
        if not isinstance(fact, WindowClosed):
            return
        connection = transaction.connection
        order = order_by_id(connection, fact.order_id).order
        contract = contract_by_id(connection, fact.contract_id)
        baseline = self._baseline(transaction, order, contract)
        index = list(self._grid.periods(self._watched(order))).index(fact.period)
        delivery = verify(fact, contract, baseline, index)
        if fact.period.start >= order.interval.end:
            delivery = ReboundMeasured(**msgspec.structs.asdict(delivery))
        record_delivery(connection, delivery)
        record_fact(transaction, delivery)

    def _baseline(
        self, transaction: Transaction, order: Order, contract: Contract
    ) -> BaselineResult:
        known = self._baselines.get((order.id, contract.id))
        if known is not None:
            return known
        assets = assets_by_id(transaction.connection, contract.assets)
        meters = sorted(asset.meter for asset in assets.values())
        events = order_days(transaction.connection, [contract.need_id])
        excluded = frozenset(self._local_date(span) for span in events)
        result = compute(
            contract.baseline,
            event=order.interval,
            grid=self._grid,
            history=self._history(meters, order.interval),
            rebound=self._rebound,
            excluded_days=excluded - {self._local_date(order.interval)},
            notified_at=read_streams(transaction.connection, [order.id])[0].at,
        )
        self._baselines[order.id, contract.id] = result
        return result

    def _history(self, meters: list[str], event: Interval) -> PowerHistory:
        """Portfolio history on the settlement grid, up to the event's end."""
        start, end = self._grid.local_midnight(event.start - _LOOK_BACK), event.end
        series = [self._readings.between(meter, start, end) for meter in meters]
        return history_of(
            [(s.start_s, s.seconds, s.power_kw) for s in series], self._grid, Interval(start, end)
        )

    def _watched(self, order: Order) -> Interval:
        return Interval(order.interval.start, order.interval.end + self._rebound)

    def _local_date(self, span: Interval) -> str:
        return self._grid.local_date(span.start)
