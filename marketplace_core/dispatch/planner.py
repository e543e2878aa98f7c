"""Turn what contracts are called for into each device's power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from marketplace_core.dispatch.bounds import (
    NEGLIGIBLE_KW,
    PLANNING,
    DeviceState,
    PlanningRule,
    allocate_tiers,
    headroom,
    unusable,
    within_deadline,
)
from marketplace_core.dispatch.order import Allocation, Call, Exclusion, Order, Shortfall
from marketplace_core.dispatch.others import NONE, Others
from marketplace_core.events import OrderInfeasible, OrderPlanned
from marketplace_core.units import Direction, Kw

__all__ = ["DeviceState", "plan", "replan"]


class _Usable(NamedTuple):
    device: DeviceState
    room_kw: Kw


class _Plan:
    """What one walk over the calls has decided so far."""

    def __init__(self, order: Order, rule: PlanningRule, others: Others) -> None:
        self.order = order
        self.rule = rule
        self.others = others
        self.allocations: list[Allocation] = []
        self.excluded: list[Exclusion] = []
        self.missing = 0.0
        self.taken: dict[str, str] = {}

    def serve(self, call: Call, devices: Sequence[DeviceState], target_kw: float) -> None:
        """Share a target over the usable devices of one call."""
        usable = self._sort_out(devices)
        room = np.array([each.room_kw for each in usable], np.float64)
        shares = allocate_tiers(target_kw, room, [each.device.profile.tier for each in usable])
        self.missing += max(0.0, target_kw - float(shares.sum()))
        for each, share in zip(usable, shares.tolist(), strict=True):
            if share < NEGLIGIBLE_KW and each.device.profile.tier > 0:
                continue  # a last resort that is not needed is left alone
            self.keep(_allocation(self.order, call, each.device, share))

    def keep(self, allocation: Allocation) -> None:
        """Take an allocation into the plan; its device serves no other call."""
        self.taken[allocation.device_id] = allocation.contract_id
        self.allocations.append(allocation)

    def outcome(self) -> OrderPlanned | OrderInfeasible:
        """The fact that the walk ends in."""
        order = self.order
        if not self.allocations:
            return OrderInfeasible(
                order_id=order.id, revision=order.revision, missing_kw=Kw(self.missing),
                excluded=tuple(self.excluded),
            )  # fmt: skip
        return OrderPlanned(
            order_id=order.id,
            revision=order.revision,
            interval=order.interval,
            allocations=tuple(self.allocations),
            missing_kw=Kw(self.missing if self.missing >= NEGLIGIBLE_KW else 0.0),
            excluded=tuple(self.excluded),
        )

    def _sort_out(self, devices: Sequence[DeviceState]) -> list[_Usable]:
        usable: dict[str, _Usable] = {}
        for each in devices:
            device = within_deadline(self.others.referred(each), self.order.interval)
            device_id = device.profile.device_id
            if device_id in usable:
                continue  # listed twice: two assets of the contract name one device
            reason = unusable(device)
            if device_id in self.taken:
                reason = f"it already serves contract {self.taken[device_id]}"
            elif device_id in self.others.taken:
                reason = "it already serves another order"  # whose is nobody's business
            room = Kw(0.0)
            if not reason:
                hours = self.order.interval.hours
                room = headroom(device, self.order.direction, hours, self.rule)
                reason = _no_room(device, self.order.direction) if room < NEGLIGIBLE_KW else ""
            if reason:
                self.excluded.append(Exclusion(device_id=device_id, reason=reason))
            else:
                usable[device_id] = _Usable(device, room)
        return list(usable.values())


def plan(
    order: Order,
    calls: Sequence[Call],
    fleet: Mapping[str, Sequence[DeviceState]],
    rule: PlanningRule = PLANNING,
    *,
    others: Others = NONE,
) -> OrderPlanned | OrderInfeasible:
    """Allocate each call over the devices of its contract.

    `fleet` holds the devices of each contract id. A shortfall of one contract is not
    moved to another: it is stated as missing. A device serves one call only, and one of
    the orders that overlap, because its setpoint is absolute.
    """
    walk = _Plan(order, rule, others)
    for call in calls:
        walk.serve(call, fleet.get(call.contract_id, ()), call.kw)
    return walk.outcome()


def replan(
    order: Order,
    calls: Sequence[Call],
    fleet: Mapping[str, Sequence[DeviceState]],
    *,
    previous: Sequence[Allocation],
    short: Sequence[Shortfall],
    rule: PlanningRule = PLANNING,
    others: Others = NONE,
) -> OrderPlanned | OrderInfeasible:
    """Plan again while the order runs; `order.interval` is what is left of it.

    `previous` is the plan in force: its references stand, because a driven device's power
    no longer says where it would be by itself. A device that is `short` keeps its setpoint
    and counts for what it really delivers; a device that cannot be used any more keeps its
    setpoint too and counts for nothing; the rest is shared anew over the others.
    """
    walk = _Plan(order, rule, others)
    before = {each.device_id: each for each in previous}
    delivered = {each.device_id: each.delivered_kw for each in short}
    for call in calls:
        devices = [_referred(each, before) for each in fleet.get(call.contract_id, ())]
        fixed = [
            each.profile.device_id for each in devices
            if each.profile.device_id in before
            and (each.profile.device_id in delivered or unusable(each))
        ]  # fmt: skip
        counted = 0.0
        for device_id in dict.fromkeys(fixed):
            walk.keep(before[device_id])
            counted += delivered.get(device_id, 0.0)
        free = [each for each in devices if each.profile.device_id not in set(fixed)]
        walk.serve(call, free, max(0.0, call.kw - counted))
    return walk.outcome()


def _referred(device: DeviceState, before: Mapping[str, Allocation]) -> DeviceState:
    """The device as it would be by itself, as far as the plan in force knows."""
    known = before.get(device.profile.device_id)
    if known is None:
        return device
    return msgspec.structs.replace(device, reference_kw=known.reference_kw)


def _no_room(device: DeviceState, direction: Direction) -> str:
    reference = device.reference_kw or 0.0
    text = f"it has no room {direction.value} from {reference:.3f} kW"
    if device.soc_kwh is None:
        return text
    return f"{text} with {device.soc_kwh:.2f} kWh stored"


def _allocation(order: Order, call: Call, device: DeviceState, share: float) -> Allocation:
    profile, reference = device.profile, device.reference_kw or 0.0
    power = reference + order.direction.sign * share
    return Allocation(
        device_id=profile.device_id,
        contract_id=call.contract_id,
        share_kw=Kw(share),
        reference_kw=Kw(reference),
        # A meter may report a little more than the device's rating: the command never does.
        power_kw=Kw(min(max(power, profile.min_kw), profile.max_kw)),
    )
