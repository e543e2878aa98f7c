"""Settle an order: statement lines by the contracts' terms, and their double entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from marketplace_core.dispatch.order import Order
from marketplace_core.events import DeliveryVerified, OrderSettled
from marketplace_core.intervals import Interval
from marketplace_core.procurement.contract import Contract
from marketplace_core.settlement.ledger import entry, reversal
from marketplace_core.settlement.statement import Posting, StatementLine
from marketplace_core.settlement.terms import Charge, terms_of


def settle(
    order: Order,
    contracts: Mapping[str, Contract],
    deliveries: Iterable[DeliveryVerified],
    *,
    version: int,
    new_id: Callable[[str], str],
    previous: Sequence[Posting] = (),
) -> OrderSettled:
    """Book an order under a version; the first is 1.

    `contracts` holds the contracts that were called, by id; of several deliveries of one
    period the highest version counts. `previous` is all that was posted for the order
    before: it is reversed, so that the new lines alone remain.

    Raises:
        RejectedError: a contract names terms that do not exist.
        KeyError: a delivery belongs to a contract that is not given.
    """
    postings = list(reversal(previous, new_id("txn"))) if previous else []
    lines: list[StatementLine] = []
    by_contract = _newest(order, contracts, deliveries)
    for contract_id, delivered in sorted(by_contract.items()):
        contract = contracts[contract_id]
        for charge in terms_of(contract).charges(contract, delivered):
            line = _line(order, contract, charge, version, new_id("stl"))
            lines.append(line)
            postings += entry(line, contract.buyer, new_id("txn"))
    return OrderSettled(
        order_id=order.id,
        revision=order.revision,
        version=version,
        lines=tuple(lines),
        postings=tuple(postings),
    )


def _newest(
    order: Order, contracts: Mapping[str, Contract], deliveries: Iterable[DeliveryVerified]
) -> dict[str, list[DeliveryVerified]]:
    """Of each contract and period the delivery with the highest version."""
    newest: dict[str, dict[Interval, DeliveryVerified]] = {key: {} for key in contracts}
    for delivery in deliveries:
        if delivery.order_id != order.id:
            msg = f"delivery of {delivery.order_id} among those of {order.id}"
            raise ValueError(msg)
        known = newest[delivery.contract_id].get(delivery.period)
        if known is None or delivery.version > known.version:
            newest[delivery.contract_id][delivery.period] = delivery
    return {key: list(periods.values()) for key, periods in newest.items()}


def _line(
    order: Order, contract: Contract, charge: Charge, version: int, line_id: str
) -> StatementLine:
    return StatementLine(
        id=line_id,
        order_id=order.id,
        contract_id=contract.id,
        seller=contract.seller,
        version=version,
        item=charge.item,
        quantity=charge.quantity,
        unit=charge.unit,
        price=charge.price,
        amount=charge.amount,
        currency=contract.currency,
        explains=charge.explains,
    )
