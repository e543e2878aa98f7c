"""What an order would do, without doing it: who is called, what it costs, what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from marketplace_core.dispatch.bounds import PLANNING, DeviceState, headroom, unusable
from marketplace_core.dispatch.merit_order import award
from marketplace_core.dispatch.order import Allocation, Call, Exclusion, Order
from marketplace_core.dispatch.others import NONE, Others
from marketplace_core.dispatch.planner import plan
from marketplace_core.events import OrderPlanned, OrderRejected
from marketplace_core.procurement.contract import Contract
from marketplace_core.units import Kw, Money


class CallEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What one contract would be called for, and what that would cost."""

    call: Call
    planned_kw: Kw
    """What its devices can take of the call."""
    cost: Decimal
    """`planned_kw` x hours x price, rounded to the cent."""
    currency: str
    headroom_left_kw: Kw
    """What its usable devices could still give on top."""
    contract_left_kw: Kw
    """What the contract obliges to beyond this call and those of other orders."""


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a dry run."""

    feasible: bool
    """Whether any device would be driven."""
    reason: str
    """Why nothing would happen; empty when something would."""
    calls: tuple[CallEstimate, ...]
    allocations: tuple[Allocation, ...]
    excluded: tuple[Exclusion, ...]
    shortfall_kw: Kw
    """Part of the order that no contract covers."""
    missing_kw: Kw
    """Part of the calls that no device could take."""
    cost: Decimal
    currency: str


def rehearse(
    order: Order,
    contracts: Sequence[Contract],
    already_called: Mapping[str, Kw],
    fleet: Mapping[str, Sequence[DeviceState]],
    currency: str,
    *,
    others: Others = NONE,
) -> DryRun:
    """Award and plan an order on what is known now. Arguments are those of `award` and `plan`."""
    awarded = award(order, contracts, already_called)
    if isinstance(awarded, OrderRejected):
        return DryRun(
            feasible=False, reason=awarded.reason, calls=(), allocations=(), excluded=(),
            shortfall_kw=order.kw, missing_kw=Kw(0.0), cost=Decimal("0.00"), currency=currency,
        )  # fmt: skip
    planned = plan(order, awarded.calls, fleet, others=others)
    allocations = planned.allocations if isinstance(planned, OrderPlanned) else ()
    shares: dict[str, dict[str, Kw]] = {}
    for each in allocations:
        shares.setdefault(each.contract_id, {})[each.device_id] = each.share_kw
    by_id = {contract.id: contract for contract in contracts}
    estimates = tuple(
        _estimate(
            order,
            call,
            by_id[call.contract_id],
            others_kw=already_called.get(call.contract_id, Kw(0.0)),
            shares=shares.get(call.contract_id, {}),
            devices=[
                others.referred(each)
                for each in fleet.get(call.contract_id, ())
                if each.profile.device_id not in others.taken
            ],
        )
        for call in awarded.calls
    )
    return DryRun(
        feasible=bool(allocations),
        reason="" if allocations else "no device can deliver any part of it",
        calls=estimates,
        allocations=allocations,
        excluded=planned.excluded,
        shortfall_kw=awarded.shortfall_kw,
        missing_kw=planned.missing_kw,
        cost=sum((each.cost for each in estimates), Decimal("0.00")),
        currency=currency,
    )


def _estimate(
    order: Order,
    call: Call,
    contract: Contract,
    *,
    others_kw: Kw,
    shares: Mapping[str, Kw],
    devices: Iterable[DeviceState],
) -> CallEstimate:
    planned = sum(shares.values())
    energy = Decimal(repr(planned * order.interval.hours))
    cost = Money(energy * call.price / 1000, contract.currency).rounded()
    left = 0.0
    seen: set[str] = set()
    for device in devices:
        device_id = device.profile.device_id
        if device_id in seen or unusable(device):
            continue
        seen.add(device_id)
        room = headroom(device, order.direction, order.interval.hours, PLANNING)
        left += max(0.0, room - shares.get(device_id, 0.0))
    return CallEstimate(
        call=call,
        planned_kw=Kw(planned),
        cost=cost.amount,
        currency=contract.currency,
        headroom_left_kw=Kw(left),
        contract_left_kw=Kw(max(0.0, contract.kw - others_kw - call.kw)),
    )
