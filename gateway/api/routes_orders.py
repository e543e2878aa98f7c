"""Orders: submit, read, list; deliveries and statement of one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Connection

from gateway.api.auth import Caller
from gateway.api.idempotency import KEYED, once
from gateway.api.instants import Instant
from gateway.api.paging import Paging, page_response
from gateway.api.rehearsal import rehearsal
from gateway.api.routes_statements import Format, lines_csv
from gateway.api.schemas import OrderBody
from gateway.api.services import Using, csv_response, json_response
from gateway.store.audit import facts_page
from gateway.store.journal import read_streams
from gateway.store.statements import (
    deliveries_page,
    lines_of,
    lines_page,
    postings_of,
    setpoints_of,
    windows_of,
)
from gateway.store.viewer import Viewer
from gateway.store.visible import OrderFilter, order, order_of_buyer, orders_page
from gateway.store.writer import Transaction
from marketplace_core.dispatch.lifecycle import OrderState
from marketplace_core.dispatch.order import Order
from marketplace_core.ports import Record

router = APIRouter(prefix="/v1", tags=["orders"])


def _order_filter(
    state: OrderState | None = None,
    need_id: Annotated[str | None, Query(max_length=64)] = None,
    since: Annotated[Instant | None, Query(alias="from")] = None,
    until: Annotated[Instant | None, Query(alias="to")] = None,
) -> OrderFilter:
    return OrderFilter(state=state, need_id=need_id, since=since, until=until)


@router.post("/orders", status_code=202, openapi_extra=KEYED)
async def submit_order(
    body: OrderBody, request: Request, services: Using, caller: Caller
) -> Response:
    """Submit an order. The 202 comes after its first fact is durable.

    With `confirm`, the order is refused unless it still does what the dry run showed.
    """
    caller.require("buyer")
    buyer, command = caller.organisation, body.command()

    def work(transaction: Transaction) -> Order:
        claim = services.confirmations.check(buyer, command, body.confirm)
        return services.confirmations.submit(
            transaction, claim,
            rehearse=lambda: rehearsal(transaction.connection, services, buyer, command),
            submit=lambda: services.intake.submit(transaction, buyer, command),
        )  # fmt: skip

    return await once(request, services, caller, work, status=202)


@router.get("/orders")
async def list_orders(
    request: Request,
    services: Using,
    caller: Caller,
    page: Paging,
    wanted: Annotated[OrderFilter, Depends(_order_filter)],
) -> Response:
    """The caller's own orders, and those that call its contracts: of these its own part.

    `from` and `to` choose orders whose interval meets that span.
    """
    found = await services.read(lambda c: orders_page(c, caller.viewer, page, wanted))
    return page_response(request, found)


@router.get("/orders/{order_id}")
async def read_order(order_id: str, services: Using, caller: Caller) -> Response:
    """An order: commanded, acknowledged and measured, kept apart.

    A seller that it calls sees what concerns its own contracts and devices.
    """
    return json_response(await services.read(lambda c: _whole(c, caller.viewer, order_id)))


@router.get("/orders/{order_id}/facts")
async def read_facts(
    order_id: str, request: Request, services: Using, caller: Caller, page: Paging
) -> Response:
    """Every journalled fact of one of the caller's own orders, in order."""

    def read(connection: Connection) -> Response:
        order_of_buyer(connection, caller.viewer, order_id)
        return page_response(request, facts_page(connection, caller.viewer, page, order_id))

    return await services.read(read)


@router.get("/orders/{order_id}/deliveries")
async def list_deliveries_of_order(
    order_id: str, request: Request, services: Using, caller: Caller, page: Paging
) -> Response:
    """Settlement periods of an order in the caller's contracts: instructed and delivered."""
    await services.read(lambda c: order(c, caller.viewer, order_id))
    found = await services.read(
        lambda c: deliveries_page(c, caller.viewer, page, order_id=order_id)
    )
    return page_response(request, found)


@router.get("/orders/{order_id}/statement")
async def read_statement(
    order_id: str,
    *,
    request: Request,
    services: Using,
    caller: Caller,
    page: Paging,
    form: Format = "json",
) -> Response:
    """Statement lines of an order that the caller is a side of, all versions; CSV is no page."""

    def read(connection: Connection) -> Response:
        order(connection, caller.viewer, order_id)
        if form == "csv":
            lines = lines_of(connection, caller.viewer, order_id)
            return csv_response(lines_csv(lines), f"statement-{order_id}")
        return page_response(request, lines_page(connection, caller.viewer, page, order_id))

    return await services.read(read)


def _whole(connection: Connection, viewer: Viewer, order_id: str) -> dict[str, object]:
    row = order(connection, viewer, order_id)
    bought = viewer.owns(row.order.buyer)
    records = read_streams(connection, [order_id]) if bought else []
    return {
        "order": row.order,
        "state": row.state.value,
        "calls": row.calls,
        "events": [_event(record) for record in records],
        "setpoints": setpoints_of(connection, viewer, order_id),
        "windows": windows_of(connection, viewer, order_id),
        "lines": lines_of(connection, viewer, order_id),
        "postings": postings_of(connection, viewer, order_id),
    }


def _event(record: Record) -> dict[str, object]:
    return {"kind": type(record.fact).__name__, "at": record.at, "shard": record.shard,
            "sequence": record.sequence}  # fmt: skip
