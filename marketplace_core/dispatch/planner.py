"""Turn what contracts are called for into each device's power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from marketplace_core.dispatch.bounds import PLANNING, DeviceState, PlanningRule
from marketplace_core.dispatch.order import Allocation, Call, Order, Shortfall
from marketplace_core.dispatch.others import NONE, Others
from marketplace_core.dispatch.sharing import BY_ROOM, Sharing
from marketplace_core.dispatch.walk import Walk
from marketplace_core.events import OrderInfeasible, OrderPlanned

__all__ = ["DeviceState", "plan", "replan"]


def plan(
    order: Order,
    calls: Sequence[Call],
    fleet: Mapping[str, Sequence[DeviceState]],
    rule: PlanningRule = PLANNING,
    *,
    others: Others = NONE,
    sharing: Sharing = BY_ROOM,
) -> OrderPlanned | OrderInfeasible:
    """Allocate each call over the devices of its contract.

    `fleet` holds the devices of each contract id. A shortfall of one contract is not
    moved to another: it is stated as missing. A device serves one call only, and one of
    the orders that overlap, because its setpoint is absolute.
    """
    walk = Walk(order, rule, others, sharing, {})
    for call in calls:
        walk.serve(call, walk.fleet(fleet.get(call.contract_id, ())), call.kw)
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
    sharing: Sharing = BY_ROOM,
) -> OrderPlanned | OrderInfeasible:
    """Plan again while the order runs; `order.interval` is what is left of it.

    `previous` is the plan in force: its references stand, because a driven device's power
    no longer says where it would be by itself. A device that is `short` keeps its setpoint
    and counts for what it really delivers; a device that cannot be used any more keeps its
    setpoint too and counts for nothing; the rest is shared anew over the others.
    """
    before = {each.device_id: each for each in previous}
    walk = Walk(order, rule, others, sharing, before)
    delivered = {each.device_id: each.delivered_kw for each in short}
    for call in calls:
        bound = walk.fleet(fleet.get(call.contract_id, ()))
        fixed = {
            name: before[name]
            for name, usable in zip(bound.ids, bound.columns.usable.tolist(), strict=True)
            if name in before and (name in delivered or not usable)
        }
        walk.keep(fixed.values())
        counted = sum(delivered.get(name, 0.0) for name in fixed)
        free = bound.of([row for row, name in enumerate(bound.ids) if name not in fixed])
        walk.serve(call, free, max(0.0, call.kw - counted))
    return walk.outcome()
