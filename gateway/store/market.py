"""The market's state: assets, needs, bids, contracts and orders.

These reads are for the stages and for commands, which see everything. What serves a
participant stands in `visible.py`, `registry.py` and their like: there the organisation is
a predicate of every query, and what is not its own is not found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from gateway.store.among import among
from gateway.store.engine import to_us
from gateway.store.tables import assets, bids, contracts, needs, orders
from marketplace_core.dispatch.lifecycle import CALLS_NOTHING, STOPPABLE, OrderState
from marketplace_core.dispatch.order import Call, Order
from marketplace_core.errors import NotFoundError
from marketplace_core.intervals import Interval
from marketplace_core.procurement.bid import Bid, Clearing
from marketplace_core.procurement.contract import Contract
from marketplace_core.procurement.need import Need
from marketplace_core.registry.asset import Asset
from marketplace_core.units import Kw

T = TypeVar("T")


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """An order and where it stands."""

    order: Order
    state: OrderState
    calls: tuple[Call, ...]
    revision: int = 0
    """Of the newest plan that was asked for."""


def to_json(value: object) -> str:
    """Canonical JSON text of a core type."""
    return msgspec.json.encode(value, order="deterministic").decode()


def assets_by_id(connection: Connection, ids: Collection[str]) -> dict[str, Asset]:
    """Assets by id, in its order; unknown ids are left out."""
    decode = msgspec.json.Decoder(Asset).decode
    return {asset.id: asset for asset in map(decode, _documents(connection, ids))}


def devices_of(connection: Connection, ids: Collection[str]) -> list[str]:
    """Devices bound to assets, in the order of the assets' ids; unknown assets have none."""
    decode = msgspec.json.Decoder(_Bound).decode
    return [name for each in map(decode, _documents(connection, ids)) for name in each.devices]


def _documents(connection: Connection, ids: Collection[str]) -> Iterable[str]:
    query = select(assets.c.document).where(among(connection, assets.c.id, ids))
    return connection.scalars(query.order_by(assets.c.id))


class _Bound(msgspec.Struct, frozen=True):
    """What of an asset's document says which devices it has."""

    devices: tuple[str, ...]


def add_need(connection: Connection, need: Need) -> None:
    """Keep a published need."""
    row = {"id": need.id, "buyer": need.buyer, "state": "open", "document": to_json(need)}
    connection.execute(insert(needs).values(row))


def need_by_id(connection: Connection, need_id: str) -> tuple[Need, str]:
    """A need and its state (`open`, `awarded`); NotFoundError when there is none."""
    query = select(needs.c.document, needs.c.state).where(needs.c.id == need_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError("need", need_id)
    return msgspec.json.decode(row.document, type=Need), row.state


def add_bid(connection: Connection, bid: Bid) -> None:
    """Keep a sealed bid."""
    row = {"id": bid.id, "need_id": bid.need_id, "seller": bid.seller, "document": to_json(bid)}
    connection.execute(insert(bids).values(row))


def bids_for(connection: Connection, need_id: str) -> list[Bid]:
    """Every bid against a need, by id."""
    query = select(bids.c.document).where(bids.c.need_id == need_id).order_by(bids.c.id)
    return [msgspec.json.decode(row.document, type=Bid) for row in connection.execute(query)]


def record_clearing(
    connection: Connection, clearing: Clearing, offered: Collection[Contract]
) -> None:
    """Keep an auction's outcome and the contracts it offers."""
    connection.execute(
        update(needs)
        .where(needs.c.id == clearing.need_id)
        .values(state="awarded", clearing=to_json(clearing))
    )
    for contract in offered:
        row = {
            "id": contract.id, "need_id": contract.need_id, "buyer": contract.buyer,
            "seller": contract.seller, "document": to_json(contract),
        }  # fmt: skip
        connection.execute(insert(contracts).values(row))


def contracts_for(connection: Connection, need_id: str) -> list[Contract]:
    """Contracts of a need, by id."""
    query = select(contracts.c.document).where(contracts.c.need_id == need_id)
    rows = connection.execute(query.order_by(contracts.c.id))
    return [msgspec.json.decode(row.document, type=Contract) for row in rows]


def contract_by_id(connection: Connection, contract_id: str) -> Contract:
    """One contract; NotFoundError when there is none."""
    text = connection.scalar(select(contracts.c.document).where(contracts.c.id == contract_id))
    if text is None:
        raise NotFoundError("contract", contract_id)
    return msgspec.json.decode(text, type=Contract)


def save_contract(connection: Connection, contract: Contract) -> None:
    """Replace the stored form of a contract."""
    document = to_json(contract)
    connection.execute(
        update(contracts).where(contracts.c.id == contract.id).values(document=document)
    )


def add_order(connection: Connection, order: Order, state: OrderState) -> None:
    """Keep a submitted order."""
    row = {
        "id": order.id, "buyer": order.buyer, "need_id": order.need_id, "state": state.value,
        "start_us": to_us(order.interval.start), "end_us": to_us(order.interval.end),
        "document": to_json(order),
    }  # fmt: skip
    connection.execute(insert(orders).values(row))


def order_by_id(connection: Connection, order_id: str) -> OrderRow:
    """One order; NotFoundError when there is none."""
    row = connection.execute(select(orders).where(orders.c.id == order_id)).one_or_none()
    if row is None:
        raise NotFoundError("order", order_id)
    return order_row(row)


def orders_in(connection: Connection, states: Collection[OrderState]) -> list[OrderRow]:
    """Orders in some states, by id."""
    query = select(orders).where(orders.c.state.in_([state.value for state in states]))
    return [order_row(row) for row in connection.execute(query.order_by(orders.c.id))]


def set_order_revision(connection: Connection, order_id: str, revision: int) -> None:
    """Note that an order is planned anew."""
    connection.execute(update(orders).where(orders.c.id == order_id).values(revision=revision))


def set_order_state(
    connection: Connection,
    order_id: str,
    state: OrderState,
    calls: tuple[Call, ...] | None = None,
) -> None:
    """Move an order on; `calls` are kept when the award made them."""
    values = {"state": state.value}
    if calls is not None:
        values["calls"] = to_json(calls)
    connection.execute(update(orders).where(orders.c.id == order_id).values(values))


def stop_order(connection: Connection, order_id: str, at: datetime) -> None:
    """Note that an order is stopped: from `at` on it uses no contract any more."""
    values = {"state": OrderState.STOPPED.value, "end_us": to_us(at)}
    connection.execute(update(orders).where(orders.c.id == order_id).values(values))


def is_stopped(connection: Connection, order_id: str) -> bool:
    """Whether an order was ended early and nothing more may be asked for it."""
    state = connection.scalar(select(orders.c.state).where(orders.c.id == order_id))
    return state == OrderState.STOPPED.value


def running_orders(connection: Connection, now: datetime) -> list[Order]:
    """Orders that can still be stopped, by id."""
    query = select(orders.c.document).where(
        orders.c.state.in_([state.value for state in STOPPABLE]), orders.c.end_us > to_us(now)
    )
    rows = connection.execute(query.order_by(orders.c.id))
    return [msgspec.json.decode(row.document, type=Order) for row in rows]


def called_by_others(connection: Connection, order: Order) -> dict[str, Kw]:
    """What orders that overlap with one use of each contract, in kW."""
    called: dict[str, Kw] = {}
    for other in orders_overlapping(connection, order.need_id, order.interval):
        if other.order.id == order.id or other.state in CALLS_NOTHING:
            continue
        for call in other.calls:
            called[call.contract_id] = Kw(called.get(call.contract_id, 0.0) + call.kw)
    return called


def orders_overlapping(connection: Connection, need_id: str, span: Interval) -> list[OrderRow]:
    """Orders of a need whose interval meets `span`."""
    query = (
        select(orders)
        .where(orders.c.need_id == need_id)
        .where(orders.c.start_us < to_us(span.end), orders.c.end_us > to_us(span.start))
    )
    rows = connection.execute(query.order_by(orders.c.id))
    return [order_row(row) for row in rows]


def order_days(connection: Connection, feeder_need_ids: Collection[str]) -> list[Interval]:
    """Intervals of every order of some needs, by order: event days that baselines leave out."""
    query = select(orders.c.document).where(orders.c.need_id.in_(feeder_need_ids))
    rows = connection.execute(query.order_by(orders.c.id))
    return [msgspec.json.decode(row.document, type=Order).interval for row in rows]


def order_row(row: Row[Any]) -> OrderRow:
    """A row of the table as what it stands for."""
    return OrderRow(
        order=msgspec.json.decode(row.document, type=Order),
        state=OrderState(row.state),
        calls=() if row.calls is None else msgspec.json.decode(row.calls, type=tuple[Call, ...]),
        revision=row.revision,
    )
