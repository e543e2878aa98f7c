"""Turning a plan into setpoints, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from gateway.store.market import is_stopped
from gateway.store.setpoints import add_setpoints, newest_setpoints
from gateway.store.writer import Transaction
from marketplace_core.dispatch.order import Allocation
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.events import (
    OrderFact,
    OrderPlanned,
    OrderStopped,
    SetpointsApplied,
    SetpointsIssued,
    SetpointsRefused,
    SetpointsUnconfirmed,
    SetpointsUnreachable,
)
from marketplace_core.ports import Record

CONSUMES: frozenset[type[OrderFact]] = frozenset({OrderPlanned, OrderStopped})
EMITS: frozenset[type[OrderFact]] = frozenset(
    {
        SetpointsIssued,
        SetpointsApplied,
        SetpointsRefused,
        SetpointsUnreachable,
        SetpointsUnconfirmed,
    }
)

_SAME_KW: Final = 0.01
"""Setpoints closer than this are the same: registers are scaled integers."""


class Dispatch:
    """Writes down what will be asked of which device; nothing is sent from here."""

    name = "dispatch"
    consumes = CONSUMES
    emits = EMITS

    def __init__(
        self,
        *,
        profiles: Mapping[str, DeviceProfile],
        new_id: Callable[[str], str],
        planned: Callable[[list[Setpoint]], None],
        stopped: Callable[[str, datetime], None],
    ) -> None:
        """`planned` hears of committed setpoints, `stopped` of an order that ended and when."""
        self._profiles = profiles
        self._new_id = new_id
        self._planned = planned
        self._stopped = stopped

    def handle(self, record: Record, transaction: Transaction) -> None:
        """Turn a plan into planned setpoints; end those of an order that is stopped."""
        fact = record.fact
        if isinstance(fact, OrderStopped):
            order_id, at = fact.order_id, fact.at
            transaction.after_commit.append(lambda: self._stopped(order_id, at))
            return
        if not isinstance(fact, OrderPlanned):
            return
        if is_stopped(transaction.connection, fact.order_id):
            return
        known = newest_setpoints(transaction.connection, fact.order_id)
        setpoints = [
            self._setpoint(fact, allocation) for allocation in fact.allocations
            if _is_news(known.get(allocation.device_id), allocation, fact.interval.end)
        ]  # fmt: skip
        add_setpoints(transaction.connection, setpoints)
        transaction.after_commit.append(lambda: self._planned(setpoints))

    def _setpoint(self, fact: OrderPlanned, allocation: Allocation) -> Setpoint:
        profile = self._profiles[allocation.device_id]
        length = fact.interval.duration.total_seconds()
        return Setpoint(
            id=self._new_id("spt"),
            order_id=fact.order_id,
            revision=fact.revision,
            device_id=allocation.device_id,
            power_kw=allocation.power_kw,
            valid_from=fact.interval.start,
            valid_until=fact.interval.end,
            lease_s=min(profile.lease_s, length) if profile.lease_s > 0 else length,
        )


def _is_news(known: Setpoint | None, allocation: Allocation, end: datetime) -> bool:
    """Whether a device is to be told: what does not change is not written again.

    A device whose setpoint was ended before the order's end was let go by an emergency stop:
    this order never calls it again.
    """
    if known is None:
        return True
    return known.valid_until >= end and abs(known.power_kw - allocation.power_kw) >= _SAME_KW
