"""Turn what contracts are called for into each device's power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from marketplace_core.dispatch.bounds import (
    NEGLIGIBLE_KW,
    PLANNING,
    DeviceState,
    PlanningRule,
    allocate,
    headroom,
    unusable,
)
from marketplace_core.dispatch.order import Allocation, Call, Exclusion, Order
from marketplace_core.events import OrderInfeasible, OrderPlanned
from marketplace_core.units import Direction, Kw

__all__ = ["DeviceState", "plan"]


class _Usable(NamedTuple):
    device: DeviceState
    room_kw: Kw


def plan(
    order: Order,
    calls: Sequence[Call],
    fleet: Mapping[str, Sequence[DeviceState]],
    rule: PlanningRule = PLANNING,
) -> OrderPlanned | OrderInfeasible:
    """Allocate each call over the devices of its contract.

    `fleet` holds the devices of each contract id. A shortfall of one contract is not
    moved to another: it is stated as missing. A device serves one call only, because
    its setpoint is absolute.
    """
    allocations: list[Allocation] = []
    excluded: list[Exclusion] = []
    missing = 0.0
    taken: dict[str, str] = {}
    for call in calls:
        usable, left_out = _sort_out(order, fleet.get(call.contract_id, ()), taken, rule)
        excluded += left_out
        shares = allocate(call.kw, np.array([each.room_kw for each in usable], np.float64))
        missing += max(0.0, call.kw - float(shares.sum()))
        for each, share in zip(usable, shares.tolist(), strict=True):
            taken[each.device.profile.device_id] = call.contract_id
            allocations.append(_allocation(order, call, each.device, share))
    if not allocations:
        return OrderInfeasible(
            order_id=order.id,
            revision=order.revision,
            missing_kw=Kw(missing),
            excluded=tuple(excluded),
        )
    return OrderPlanned(
        order_id=order.id,
        revision=order.revision,
        interval=order.interval,
        allocations=tuple(allocations),
        missing_kw=Kw(missing if missing >= NEGLIGIBLE_KW else 0.0),
        excluded=tuple(excluded),
    )


def _sort_out(
    order: Order, devices: Sequence[DeviceState], taken: Mapping[str, str], rule: PlanningRule
) -> tuple[list[_Usable], list[Exclusion]]:
    usable: dict[str, _Usable] = {}
    excluded: list[Exclusion] = []
    for device in devices:
        device_id = device.profile.device_id
        if device_id in usable:
            continue  # listed twice: two assets of the contract name one device
        reason = unusable(device)
        if device_id in taken:
            reason = f"it already serves contract {taken[device_id]}"
        room = Kw(0.0)
        if not reason:
            room = headroom(device, order.direction, order.interval.hours, rule)
            reason = _no_room(device, order.direction) if room < NEGLIGIBLE_KW else ""
        if reason:
            excluded.append(Exclusion(device_id=device_id, reason=reason))
        else:
            usable[device_id] = _Usable(device, room)
    return list(usable.values()), excluded


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
