"""Merit order: which contracts an order calls, cheapest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from marketplace_core.dispatch.order import Call, Order
from marketplace_core.events import OrderAwarded, OrderRejected
from marketplace_core.procurement.contract import Contract
from marketplace_core.units import Kw

_NEGLIGIBLE_KW: Final = 1e-6
"""A milliwatt: less than this is not called."""


def award(
    order: Order, contracts: Iterable[Contract], already_called: Mapping[str, Kw]
) -> OrderAwarded | OrderRejected:
    """Call contracts by utilisation price, then id, until the order is covered.

    `already_called` is what overlapping orders use of each contract, in kW. A part that
    no contract covers is the award's shortfall; when nothing can be called the order is
    rejected with the reason for every contract.
    """
    calls: list[Call] = []
    passed: list[str] = []
    remaining = float(order.kw)
    for contract in sorted(contracts, key=lambda each: (each.utilisation_price, each.id)):
        free = contract.kw - already_called.get(contract.id, 0.0)
        reason = _unfit(order, contract, free)
        if reason:
            passed.append(f"{contract.id} {reason}")
        elif remaining > _NEGLIGIBLE_KW:
            kw = min(free, remaining)
            remaining -= kw
            calls.append(_call(contract, kw))
    if not calls:
        reason = "no contract can serve the order: " + ("; ".join(passed) or "the need has none")
        return OrderRejected(order_id=order.id, revision=order.revision, reason=reason)
    return OrderAwarded(
        order_id=order.id,
        revision=order.revision,
        calls=tuple(calls),
        shortfall_kw=Kw(remaining if remaining > _NEGLIGIBLE_KW else 0.0),
    )


def reaward(
    order: Order,
    previous: Sequence[Call],
    contracts: Iterable[Contract],
    already_called: Mapping[str, Kw],
    missing: Mapping[str, Kw],
) -> OrderAwarded:
    """Call again while an order runs: what some contracts miss is called from the others.

    Nobody is let off: a contract that falls short stays called for what it was. `missing`
    is what each of them lacks, in kW; `already_called` is what other orders use. What no
    contract has free is the award's shortfall.
    """
    called = {call.contract_id: call for call in previous}
    remaining = float(sum(missing.values()))
    for contract in sorted(contracts, key=lambda each: (each.utilisation_price, each.id)):
        own = float(called[contract.id].kw) if contract.id in called else 0.0
        free = contract.kw - already_called.get(contract.id, 0.0) - own
        if contract.id in missing or _unfit(order, contract, free):
            continue
        extra = min(free, remaining)
        if extra > _NEGLIGIBLE_KW:
            remaining -= extra
            called[contract.id] = _call(contract, own + extra)
    return OrderAwarded(
        order_id=order.id,
        revision=order.revision,
        calls=tuple(called.values()),
        shortfall_kw=Kw(remaining if remaining > _NEGLIGIBLE_KW else 0.0),
    )


def _call(contract: Contract, kw: float) -> Call:
    return Call(
        contract_id=contract.id,
        seller=contract.seller,
        kw=Kw(kw),
        price=contract.utilisation_price,
    )


def _unfit(order: Order, contract: Contract, free: float) -> str:
    """Why a contract cannot be called, or nothing."""
    span, window = order.interval, contract.window
    reasons = (
        (contract.need_id != order.need_id, f"serves need {contract.need_id}"),
        (contract.buyer != order.buyer, "belongs to another buyer"),
        (contract.feeder != order.feeder, f"is on feeder {contract.feeder}"),
        (contract.direction is not order.direction, f"is for {contract.direction.value}"),
        (not contract.in_force, "is not signed by both sides"),
        (
            span.start < window.start or span.end > window.end,
            f"covers {window.start.isoformat()} to {window.end.isoformat()} only",
        ),
        (free <= _NEGLIGIBLE_KW, "is already called in full by overlapping orders"),
    )
    return next((reason for applies, reason in reasons if applies), "")
