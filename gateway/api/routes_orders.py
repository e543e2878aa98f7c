"""Orders and statements."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request, Response

from gateway.api.auth import Caller, Principal
from gateway.api.schemas import OrderBody
from gateway.api.services import Using, json_response, once
from gateway.store.delivery import lines_of, postings_of, windows_of
from gateway.store.journal import read_streams
from gateway.store.market import OrderRow, order_by_id
from gateway.store.setpoints import setpoints_of
from gateway.store.writer import Transaction
from marketplace_core.dispatch.order import Order
from marketplace_core.errors import RejectedError
from marketplace_core.ports import Record

router = APIRouter(prefix="/v1", tags=["orders"])


@router.post("/orders", status_code=202)
async def submit_order(
    body: OrderBody, request: Request, services: Using, caller: Caller
) -> Response:
    """Submit an order. The 202 comes after its first fact is durable."""
    caller.require("buyer")
    command = body.command()

    def work(transaction: Transaction) -> Order:
        return services.intake.submit(transaction, caller.organisation, command)

    return await once(request, services, caller, work, status=202)


@router.get("/orders/{order_id}")
def read_order(order_id: str, services: Using, caller: Caller) -> Response:
    """An order: commanded, acknowledged and measured, kept apart."""
    with services.engine.connect() as connection:
        row = _visible(order_by_id(connection, order_id), caller)
        return json_response(
            {
                "order": row.order,
                "state": row.state.value,
                "calls": row.calls,
                "events": [_event(record) for record in read_streams(connection, [order_id])],
                "setpoints": setpoints_of(connection, order_id),
                "windows": windows_of(connection, order_id),
                "lines": lines_of(connection, order_id),
                "postings": postings_of(connection, order_id),
            }
        )


@router.get("/orders/{order_id}/facts")
def read_facts(order_id: str, services: Using, caller: Caller) -> Response:
    """Every journalled fact of an order, in order."""
    with services.engine.connect() as connection:
        _visible(order_by_id(connection, order_id), caller)
        return json_response(read_streams(connection, [order_id]))


@router.get("/orders/{order_id}/statement")
def read_statement(order_id: str, services: Using, caller: Caller) -> Response:
    """Statement lines of an order that the caller is a side of."""
    with services.engine.connect() as connection:
        return json_response(lines_of(connection, order_id, viewer=caller.viewer))


@router.get("/readings/{series}")
def read_series(
    series: str, start: datetime, end: datetime, services: Using, caller: Caller
) -> Response:
    """Readings of a series: `[start, seconds, power_kw]` rows, for operators."""
    caller.require("operator")
    data = services.readings.between(series, start, end)
    rows = zip(data.start_s.tolist(), data.seconds.tolist(), data.power_kw.tolist(), strict=True)
    return json_response({"series": series, "rows": list(rows)})


def _visible(row: OrderRow, caller: Principal) -> OrderRow:
    if caller.viewer not in {None, row.order.buyer}:
        raise RejectedError(f"there is no order {row.order.id}", field="order_id")
    return row


def _event(record: Record) -> dict[str, object]:
    return {"kind": type(record.fact).__name__, "at": record.at, "shard": record.shard,
            "sequence": record.sequence}  # fmt: skip
