"""The market as a participant sees it: the viewer is a predicate of every query.

A buyer sees its needs, contracts and orders whole. A seller sees its bids, its contracts
and, of an order, what concerns its contracts. Needs and cleared auctions are public.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, or_, select

from gateway.store.engine import to_us
from gateway.store.market import OrderRow, order_row
from gateway.store.paging import Page, Slice, rows_of
from gateway.store.tables import bids, contracts, needs, orders, windows
from gateway.store.viewer import Viewer
from marketplace_core.dispatch.lifecycle import OrderState
from marketplace_core.errors import NotFoundError
from marketplace_core.procurement.bid import Bid, Clearing
from marketplace_core.procurement.contract import Contract
from marketplace_core.procurement.need import Need

_SIDES = (contracts.c.buyer, contracts.c.seller)


class NeedView(msgspec.Struct, frozen=True, kw_only=True):
    """A need, where it stands and, once cleared, what became of every bid."""

    need: Need
    state: str
    """`open` or `awarded`."""
    clearing: Clearing | None


class OrderFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which orders are asked for; None = any."""

    state: OrderState | None = None
    need_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Orders whose interval meets `[since, until)`."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """As conditions of a query."""
        found: list[ColumnElement[bool]] = []
        if self.state is not None:
            found.append(orders.c.state == self.state.value)
        if self.need_id is not None:
            found.append(orders.c.need_id == self.need_id)
        if self.since is not None:
            found.append(orders.c.end_us > to_us(self.since))
        if self.until is not None:
            found.append(orders.c.start_us < to_us(self.until))
        return found


class NeedFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which needs are asked for; None = any."""

    state: str | None = None
    feeder: str | None = None
    buyer: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As conditions of a query."""
        found: list[ColumnElement[bool]] = []
        if self.state is not None:
            found.append(needs.c.state == self.state)
        if self.buyer is not None:
            found.append(needs.c.buyer == self.buyer)
        if self.feeder is not None:
            member = f'"feeder":{msgspec.json.encode(self.feeder).decode()}'
            found.append(needs.c.document.contains(member, autoescape=True))
        return found


def needs_page(connection: Connection, page: Page, wanted: NeedFilter) -> Slice[NeedView]:
    """Needs by id: they are public."""
    query = select(needs).where(*wanted.conditions())
    found = rows_of(connection, query, page, needs.c.id)
    return Slice([_need(row) for row in found.items], found.following)


def need_view(connection: Connection, need_id: str) -> NeedView:
    """One need: it is public. NotFoundError when there is none."""
    row = connection.execute(select(needs).where(needs.c.id == need_id)).one_or_none()
    if row is None:
        raise NotFoundError("need", need_id)
    return _need(row)


def auctions_page(connection: Connection, page: Page) -> Slice[NeedView]:
    """Cleared auctions by the id of their need: their history is public."""
    query = select(needs).where(needs.c.clearing.is_not(None))
    found = rows_of(connection, query, page, needs.c.id)
    return Slice([_need(row) for row in found.items], found.following)


def auction(connection: Connection, need_id: str) -> NeedView:
    """One cleared auction. NotFoundError while there is nothing to see."""
    found = need_view(connection, need_id)
    if found.clearing is None:
        raise NotFoundError("auction", need_id)
    return found


def bids_page(
    connection: Connection, viewer: Viewer, page: Page, need_id: str | None = None
) -> Slice[Bid]:
    """Bids of the viewer, by id: they are sealed."""
    query = select(bids.c.id, bids.c.document).where(viewer.of(bids.c.seller))
    if need_id is not None:
        query = query.where(bids.c.need_id == need_id)
    found = rows_of(connection, query, page, bids.c.id)
    decoded = [msgspec.json.decode(row.document, type=Bid) for row in found.items]
    return Slice(decoded, found.following)


def bid(connection: Connection, viewer: Viewer, bid_id: str) -> Bid:
    """One bid of the viewer; NotFoundError else."""
    query = select(bids.c.document).where(bids.c.id == bid_id, viewer.of(bids.c.seller))
    text = connection.scalar(query)
    if text is None:
        raise NotFoundError("bid", bid_id)
    return msgspec.json.decode(text, type=Bid)


def contracts_page(
    connection: Connection, viewer: Viewer, page: Page, need_id: str | None = None
) -> Slice[Contract]:
    """Contracts that the viewer is a side of, by id."""
    query = select(contracts.c.id, contracts.c.document).where(viewer.of(*_SIDES))
    if need_id is not None:
        query = query.where(contracts.c.need_id == need_id)
    found = rows_of(connection, query, page, contracts.c.id)
    decoded = [msgspec.json.decode(row.document, type=Contract) for row in found.items]
    return Slice(decoded, found.following)


def contract(connection: Connection, viewer: Viewer, contract_id: str) -> Contract:
    """One contract that the viewer is a side of; NotFoundError else."""
    query = select(contracts.c.document).where(contracts.c.id == contract_id, viewer.of(*_SIDES))
    text = connection.scalar(query)
    if text is None:
        raise NotFoundError("contract", contract_id)
    return msgspec.json.decode(text, type=Contract)


def order(connection: Connection, viewer: Viewer, order_id: str) -> OrderRow:
    """One order of the viewer, or one that calls its contracts; NotFoundError else."""
    query = select(orders).where(orders.c.id == order_id, _concerns(viewer))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError("order", order_id)
    return _seen(row, viewer)


def order_of_buyer(connection: Connection, viewer: Viewer, order_id: str) -> OrderRow:
    """One order that the viewer submitted; NotFoundError else, also for sellers it calls."""
    query = select(orders).where(orders.c.id == order_id, viewer.of(orders.c.buyer))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError("order", order_id)
    return order_row(row)


def orders_page(
    connection: Connection, viewer: Viewer, page: Page, wanted: OrderFilter
) -> Slice[OrderRow]:
    """Orders of the viewer and those that call its contracts, by id."""
    query = select(orders).where(_concerns(viewer), *wanted.conditions())
    found = rows_of(connection, query, page, orders.c.id)
    return Slice([_seen(row, viewer) for row in found.items], found.following)


def own_contracts(viewer: Viewer) -> Select[tuple[str]]:
    """Ids of the contracts that the viewer is a side of."""
    return select(contracts.c.id).where(viewer.of(*_SIDES))


def _concerns(viewer: Viewer) -> ColumnElement[bool]:
    sold = select(contracts.c.id).where(viewer.of(contracts.c.seller))
    called = select(windows.c.order_id).where(windows.c.contract_id.in_(sold))
    return or_(viewer.of(orders.c.buyer), orders.c.id.in_(called))


def _seen(row: Row[Any], viewer: Viewer) -> OrderRow:
    """An order; a seller sees the calls on its own contracts only, and no more power than that."""
    found = order_row(row)
    if viewer.owns(found.order.buyer):
        return found
    calls = tuple(call for call in found.calls if viewer.owns(call.seller))
    asked = sum(call.kw for call in calls)
    part = msgspec.structs.replace(found.order, kw=asked)
    return msgspec.structs.replace(found, order=part, calls=calls)


def _need(row: Row[Any]) -> NeedView:
    clearing = row.clearing
    return NeedView(
        need=msgspec.json.decode(row.document, type=Need),
        state=row.state,
        clearing=None if clearing is None else msgspec.json.decode(clearing, type=Clearing),
    )
