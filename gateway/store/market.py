"""The market's state: assets, needs, bids, contracts and orders.

Reads that serve a participant take its organisation as a predicate (`viewer`): what
is not its own is not found, rather than found and hidden.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Row, insert, or_, select, update

from gateway.store.engine import to_us
from gateway.store.tables import assets, bids, contracts, needs, orders
from marketplace_core.dispatch.lifecycle import OrderState
from marketplace_core.dispatch.order import Call, Order
from marketplace_core.errors import RejectedError
from marketplace_core.intervals import Interval
from marketplace_core.procurement.bid import Bid, Clearing
from marketplace_core.procurement.contract import Contract
from marketplace_core.procurement.need import Need
from marketplace_core.registry.asset import Asset

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


def add_assets(connection: Connection, rows: Collection[Asset]) -> None:
    """Register assets; RejectedError when an id is taken by another organisation."""
    for asset in rows:
        owner = connection.scalar(select(assets.c.organisation).where(assets.c.id == asset.id))
        document = {"feeder": asset.feeder, "document": to_json(asset)}
        if owner is None:
            row = {"id": asset.id, "organisation": asset.organisation, **document}
            connection.execute(insert(assets).values(row))
        elif owner == asset.organisation:
            connection.execute(update(assets).where(assets.c.id == asset.id).values(document))
        else:
            raise RejectedError(
                f"asset {asset.id} is registered by another organisation",
                field="id", rule="asset ids are unique", remedy="choose another id",
            )  # fmt: skip


def assets_by_id(connection: Connection, ids: Collection[str]) -> dict[str, Asset]:
    """Assets by id; unknown ids are left out."""
    rows = connection.execute(select(assets.c.document).where(assets.c.id.in_(ids)))
    found = (msgspec.json.decode(row.document, type=Asset) for row in rows)
    return {asset.id: asset for asset in found}


def assets_of(connection: Connection, organisation: str) -> list[Asset]:
    """Every asset of one organisation."""
    query = select(assets.c.document).where(assets.c.organisation == organisation)
    rows = connection.execute(query.order_by(assets.c.id))
    return [msgspec.json.decode(row.document, type=Asset) for row in rows]


def add_need(connection: Connection, need: Need) -> None:
    """Keep a published need."""
    row = {"id": need.id, "buyer": need.buyer, "state": "open", "document": to_json(need)}
    connection.execute(insert(needs).values(row))


def need_by_id(connection: Connection, need_id: str) -> tuple[Need, str]:
    """A need and its state (`open`, `awarded`); RejectedError when there is none."""
    query = select(needs.c.document, needs.c.state).where(needs.c.id == need_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise RejectedError(f"there is no need {need_id}", field="need_id", rule="known need")
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


def clearing_of(connection: Connection, need_id: str) -> Clearing | None:
    """The outcome of a need's auction, once cleared."""
    text = connection.scalar(select(needs.c.clearing).where(needs.c.id == need_id))
    return None if text is None else msgspec.json.decode(text, type=Clearing)


def contracts_for(
    connection: Connection, need_id: str, *, viewer: str | None = None
) -> list[Contract]:
    """Contracts of a need, by id; with `viewer`, only those it is a side of."""
    query = select(contracts.c.document).where(contracts.c.need_id == need_id)
    if viewer is not None:
        query = query.where(or_(contracts.c.buyer == viewer, contracts.c.seller == viewer))
    rows = connection.execute(query.order_by(contracts.c.id))
    return [msgspec.json.decode(row.document, type=Contract) for row in rows]


def contract_by_id(connection: Connection, contract_id: str) -> Contract:
    """One contract; RejectedError when there is none."""
    text = connection.scalar(select(contracts.c.document).where(contracts.c.id == contract_id))
    if text is None:
        raise RejectedError(f"there is no contract {contract_id}", field="contract_id")
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
    """One order; RejectedError when there is none."""
    row = connection.execute(select(orders).where(orders.c.id == order_id)).one_or_none()
    if row is None:
        raise RejectedError(f"there is no order {order_id}", field="order_id", rule="known order")
    return _order(row)


def orders_in(connection: Connection, states: Collection[OrderState]) -> list[OrderRow]:
    """Orders in some states, by id."""
    query = select(orders).where(orders.c.state.in_([state.value for state in states]))
    return [_order(row) for row in connection.execute(query.order_by(orders.c.id))]


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


def orders_overlapping(connection: Connection, need_id: str, span: Interval) -> list[OrderRow]:
    """Orders of a need whose interval meets `span`."""
    query = (
        select(orders)
        .where(orders.c.need_id == need_id)
        .where(orders.c.start_us < to_us(span.end), orders.c.end_us > to_us(span.start))
    )
    rows = connection.execute(query.order_by(orders.c.id))
    return [_order(row) for row in rows]


def order_days(connection: Connection, feeder_need_ids: Collection[str]) -> list[Interval]:
    """Intervals of every order of some needs: event days that baselines leave out."""
    query = select(orders.c.document).where(orders.c.need_id.in_(feeder_need_ids))
    rows = connection.execute(query)
    return [msgspec.json.decode(row.document, type=Order).interval for row in rows]


def _order(row: Row[Any]) -> OrderRow:
    return OrderRow(
        order=msgspec.json.decode(row.document, type=Order),
        state=OrderState(row.state),
        calls=() if row.calls is None else msgspec.json.decode(row.calls, type=tuple[Call, ...]),
        revision=row.revision,
    )
