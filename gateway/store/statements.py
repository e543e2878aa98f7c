"""Deliveries and statements as a side of the contract sees them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from gateway.store.delivery import WindowRow, window_row
from gateway.store.engine import to_us
from gateway.store.paging import Page, Slice, rows_of
from gateway.store.setpoints import SetpointRow, setpoint_row
from gateway.store.tables import (
    asset_devices,
    orders,
    postings,
    setpoints,
    statement_lines,
    windows,
)
from gateway.store.viewer import Viewer
from gateway.store.visible import own_contracts
from marketplace_core.errors import NotFoundError
from marketplace_core.intervals import Interval
from marketplace_core.settlement.statement import Posting, StatementLine

_SIDES = (statement_lines.c.buyer, statement_lines.c.seller)


class BookedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A statement line and who pays it."""

    line: StatementLine
    buyer: str


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """What an organisation is paid and pays in one currency."""

    currency: str
    received: Decimal
    paid: Decimal


def deliveries_page(
    connection: Connection,
    viewer: Viewer,
    page: Page,
    *,
    order_id: str | None = None,
    contract_id: str | None = None,
) -> Slice[WindowRow]:
    """Settlement periods of contracts that the viewer is a side of: instructed and delivered."""
    query = select(windows).where(windows.c.contract_id.in_(own_contracts(viewer)))
    if order_id is not None:
        query = query.where(windows.c.order_id == order_id)
    if contract_id is not None:
        query = query.where(windows.c.contract_id == contract_id)
    keys = (windows.c.order_id, windows.c.contract_id, windows.c.start_us)
    found = rows_of(connection, query, page, *keys)
    return Slice([window_row(row._mapping) for row in found.items], found.following)  # noqa: SLF001


def windows_of(connection: Connection, viewer: Viewer, order_id: str) -> list[WindowRow]:
    """Every settlement period of an order in a contract that the viewer is a side of."""
    query = select(windows).where(
        windows.c.order_id == order_id, windows.c.contract_id.in_(own_contracts(viewer))
    )
    rows = connection.execute(query.order_by(windows.c.contract_id, windows.c.start_us))
    return [window_row(row) for row in rows.mappings()]


def setpoints_of(connection: Connection, viewer: Viewer, order_id: str) -> list[SetpointRow]:
    """Setpoints of an order: all for its buyer, those of its own devices for a seller."""
    own = select(asset_devices.c.device_id).where(viewer.of(asset_devices.c.organisation))
    bought = select(orders.c.id).where(viewer.of(orders.c.buyer))
    query = select(setpoints).where(
        setpoints.c.order_id == order_id,
        setpoints.c.device_id.in_(own) | setpoints.c.order_id.in_(bought),
    )
    rows = connection.execute(query.order_by(setpoints.c.device_id, setpoints.c.id))
    return [setpoint_row(row) for row in rows]


def lines_of(connection: Connection, viewer: Viewer, order_id: str) -> list[StatementLine]:
    """Statement lines of an order that the viewer is a side of, all versions."""
    query = select(statement_lines.c.document).where(
        statement_lines.c.order_id == order_id, viewer.of(*_SIDES)
    )
    rows = connection.execute(query.order_by(statement_lines.c.version, statement_lines.c.id))
    return [msgspec.json.decode(row.document, type=StatementLine) for row in rows]


def lines_page(
    connection: Connection, viewer: Viewer, page: Page, order_id: str
) -> Slice[StatementLine]:
    """The same lines in pages, by version."""
    query = select(statement_lines).where(
        statement_lines.c.order_id == order_id, viewer.of(*_SIDES)
    )
    keys = (statement_lines.c.version, statement_lines.c.id)
    found = rows_of(connection, query, page, *keys)
    lines = [msgspec.json.decode(row.document, type=StatementLine) for row in found.items]
    return Slice(lines, found.following)


def postings_of(connection: Connection, viewer: Viewer, order_id: str) -> list[Posting]:
    """Ledger postings of an order's lines that the viewer is a side of, in booking order."""
    lines = select(statement_lines.c.id).where(
        statement_lines.c.order_id == order_id, viewer.of(*_SIDES)
    )
    own = set(connection.scalars(lines))
    query = select(postings.c.document).where(postings.c.order_id == order_id)
    rows = connection.execute(query.order_by(postings.c.transaction_id, postings.c.number))
    found = (msgspec.json.decode(row.document, type=Posting) for row in rows)
    return [posting for posting in found if posting.line_id in own]


def booked_line(connection: Connection, viewer: Viewer, line_id: str) -> BookedLine:
    """One statement line that the viewer is a side of; NotFoundError else."""
    query = select(statement_lines).where(statement_lines.c.id == line_id, viewer.of(*_SIDES))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError("line", line_id)
    return BookedLine(line=msgspec.json.decode(row.document, type=StatementLine), buyer=row.buyer)


def newest_version(connection: Connection, order_id: str) -> int:
    """The version of an order's statement that stands; 0 when nothing is booked."""
    query = select(func.max(statement_lines.c.version)).where(
        statement_lines.c.order_id == order_id
    )
    return connection.scalar(query) or 0


def statement_page(
    connection: Connection, viewer: Viewer, page: Page, period: Interval
) -> Slice[BookedLine]:
    """Lines that stand of orders that begin in a period, by id."""
    found = rows_of(connection, _statement(viewer, period), page, statement_lines.c.id)
    return Slice(_booked(found.items), found.following)


def statement(connection: Connection, viewer: Viewer, period: Interval) -> list[BookedLine]:
    """All lines that stand of orders that begin in a period, by id."""
    query = _statement(viewer, period).order_by(statement_lines.c.id)
    return _booked(connection.execute(query).all())


def totals(lines: Iterable[BookedLine], organisation: str) -> list[Total]:
    """What an organisation is paid and pays over some lines, per currency: sums of the lines."""
    received: dict[str, Decimal] = {}
    paid: dict[str, Decimal] = {}
    for booked in lines:
        line = booked.line
        if line.seller == organisation:
            received[line.currency] = received.get(line.currency, Decimal("0.00")) + line.amount
        if booked.buyer == organisation:
            paid[line.currency] = paid.get(line.currency, Decimal("0.00")) + line.amount
    zero = Decimal("0.00")
    return [
        Total(currency=each, received=received.get(each, zero), paid=paid.get(each, zero))
        for each in sorted({*received, *paid})
    ]


def _statement(viewer: Viewer, period: Interval) -> Select[Any]:
    newest = (
        select(statement_lines.c.order_id, func.max(statement_lines.c.version).label("version"))
        .group_by(statement_lines.c.order_id)
        .subquery()
    )
    stands: ColumnElement[bool] = and_(
        newest.c.order_id == statement_lines.c.order_id,
        newest.c.version == statement_lines.c.version,
    )
    return (
        select(statement_lines)
        .join(newest, stands)
        .join(orders, orders.c.id == statement_lines.c.order_id)
        .where(viewer.of(*_SIDES))
        .where(orders.c.start_us >= to_us(period.start), orders.c.start_us < to_us(period.end))
    )


def _booked(rows: Sequence[Any]) -> list[BookedLine]:
    return [
        BookedLine(line=msgspec.json.decode(row.document, type=StatementLine), buyer=row.buyer)
        for row in rows
    ]
