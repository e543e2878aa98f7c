"""One order that runs, as its facts tell it: calls, plan in force, devices under a setpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from marketplace_core.dispatch.bounds import DeviceState
from marketplace_core.dispatch.order import Allocation, Call, Order, Shortfall
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import Applied, Refused, Setpoint
from marketplace_core.dispatch.tracking import Tracked, shortfalls
from marketplace_core.events import (
    OrderAwarded,
    OrderFact,
    OrderInfeasible,
    OrderPlanned,
    OrderRejected,
    OrderRevised,
    OrderSettled,
    OrderSubmitted,
    SetpointsApplied,
    SetpointsIssued,
    SetpointsRefused,
    SetpointsUnconfirmed,
    SetpointsUnreachable,
)
from marketplace_core.units import Kw


class Running:
    """Follows one order from fact to fact. Pure: no I/O and no clock."""

    def __init__(self, profiles: Mapping[str, DeviceProfile]) -> None:
        self._profiles = profiles
        self._submitted: Order | None = None
        self._plan: dict[str, Allocation] = {}
        self._setpoints: dict[str, Setpoint] = {}
        self._failed: dict[str, str] = {}
        self._let_go: dict[str, str] = {}
        self._planned_at: datetime | None = None
        self.calls: tuple[Call, ...] = ()
        self.revision = 0
        self.made_up = 0.0
        """Kilowatts that the plan in force makes up for."""
        self.tracked: dict[str, Tracked] = {}
        """Devices under a confirmed setpoint, by id."""
        self.over = False

    @property
    def order(self) -> Order:
        """The order as it was submitted."""
        if self._submitted is None:
            msg = "an order is heard of from its first fact on"
            raise RuntimeError(msg)
        return self._submitted

    def resumed(self, now: datetime) -> None:
        """Judge devices anew: after a restart a setpoint is in force once it was read back."""
        self.tracked.clear()
        if self._planned_at is not None:
            self._planned_at = max(self._planned_at, now)

    def due(self, now: datetime, rest: timedelta, interval: timedelta) -> bool:
        """Whether it is worth a look: it runs, its last plan had time, and enough is left."""
        if self._submitted is None or self._planned_at is None:
            return False
        span = self._submitted.interval
        began = max(self._planned_at, span.start)
        return began + rest <= now and now + 2 * interval < span.end

    def let_go(self, device_ids: Iterable[str], reason: str) -> None:
        """Devices that an emergency stop took out of this order: they owe, and are not judged."""
        for device_id in device_ids:
            self.tracked.pop(device_id, None)
            self._let_go[device_id] = reason

    def ended(self, setpoint: Setpoint) -> bool:
        """Whether a setpoint was ended before the order's own end."""
        return setpoint.valid_until < self.order.interval.end

    def heard(self, fact: OrderFact) -> Iterator[tuple[str, datetime, str]]:
        """Take one fact in; yield (device, when, why) of owners that declined."""
        match fact:
            case SetpointsIssued():
                self._setpoints |= {each.id: each for each in fact.setpoints}
                for each in fact.setpoints:  # the setpoint before it may be gone by now
                    self.tracked.pop(each.device_id, None)
            case SetpointsApplied():
                for outcome in fact.outcomes:
                    self._applied(outcome)
            case SetpointsRefused() | SetpointsUnreachable() | SetpointsUnconfirmed():
                for failed in fact.outcomes:
                    self.tracked.pop(failed.device_id, None)
                    self._failed[failed.device_id] = failed.reason
                    if isinstance(failed, Refused) and failed.declined:
                        yield failed.device_id, failed.at, failed.reason
            case _:
                self._moved(fact)

    def _moved(self, fact: OrderFact) -> None:
        match fact:
            case OrderSubmitted():
                self._submitted = fact.order
            case OrderRevised():
                self.revision = fact.revision
                self.made_up = self.lacking(fact.short)
            case OrderAwarded():
                self.calls = fact.calls
            case OrderPlanned():
                self._plan |= {each.device_id: each for each in fact.allocations}
                self._planned_at = fact.interval.start
            case OrderRejected() | OrderSettled():
                self.over = True
            case OrderInfeasible():
                self.over = fact.revision == 0
            case _:
                return

    def shortfalls(self) -> tuple[Shortfall, ...]:
        """Devices that do not do their share, that could not be told to, or were let go."""
        failed = tuple(
            Shortfall(
                device_id=device_id, contract_id=self._plan[device_id].contract_id,
                delivered_kw=Kw(0.0), reason=reason,
            )
            for device_id, reason in {**self._failed, **self._let_go}.items()
            if device_id in self._plan
        )  # fmt: skip
        return (*shortfalls(self.tracked.values()), *failed)

    def lacking(self, short: Sequence[Shortfall]) -> float:
        """Kilowatts that these devices owe of their shares."""
        return sum(self._plan[each.device_id].share_kw - each.delivered_kw for each in short)

    def referred(self, device: DeviceState) -> DeviceState:
        """A device with the power it would have by itself, as far as the plan knows."""
        known = self._plan.get(device.profile.device_id)
        if known is None:
            return device
        return msgspec.structs.replace(device, reference_kw=known.reference_kw)

    def _applied(self, outcome: Applied) -> None:
        setpoint = self._setpoints.get(outcome.setpoint_id)
        allocation = self._plan.get(outcome.device_id)
        profile = self._profiles.get(outcome.device_id)
        if setpoint is None or allocation is None or profile is None:
            return
        if outcome.device_id in self._let_go:
            return  # it was on its way when the stop overtook it
        if setpoint.power_kw != allocation.power_kw:
            return  # a newer plan asks for something else: its setpoint is yet to come
        self._failed.pop(outcome.device_id, None)
        self.tracked[outcome.device_id] = Tracked(
            profile=profile,
            direction=self.order.direction,
            allocation=allocation,
            since=max(outcome.at, setpoint.valid_from),
            until=setpoint.valid_until,
        )
