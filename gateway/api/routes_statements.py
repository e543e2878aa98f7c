"""Statements of an organisation over a period, and disputes about their lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Connection

from gateway.api.auth import Caller
from gateway.api.idempotency import KEYED, once
from gateway.api.instants import Instant
from gateway.api.paging import Paging, page_response, with_next
from gateway.api.schemas import DisputeBody, ResolutionBody
from gateway.api.services import Using, csv_response, json_response
from gateway.store.disputes import dispute, disputes_page
from gateway.store.statements import statement, statement_page, totals
from gateway.store.viewer import Viewer
from marketplace_core.errors import NotFoundError, RequestError
from marketplace_core.intervals import Interval
from marketplace_core.settlement.dispute import DisputeState
from marketplace_core.settlement.statement import StatementLine

router = APIRouter(prefix="/v1", tags=["settlement"])
Format = Annotated[Literal["json", "csv"], Query(alias="format")]
_COLUMNS = (
    "id", "order_id", "contract_id", "seller", "version", "item", "quantity", "unit", "price",
    "amount", "currency", "explains",
)  # fmt: skip


def _period(
    since: Annotated[Instant, Query(alias="from")],
    until: Annotated[Instant, Query(alias="to")],
) -> Interval:
    if until <= since:
        raise RequestError("the period is empty", field="to", rule="`to` is after `from`")
    return Interval(since, until)


def _whose(
    caller: Caller, organisation: Annotated[str | None, Query(max_length=64)] = None
) -> Viewer:
    """Whose statement is asked for: one's own, or for an operator anybody's."""
    if organisation is not None and not caller.viewer.owns(organisation):
        raise NotFoundError("organisation", organisation)
    return Viewer(organisation or caller.organisation)


@router.get("/statements")
async def read_statements(
    request: Request,
    services: Using,
    page: Paging,
    viewer: Annotated[Viewer, Depends(_whose)],
    period: Annotated[Interval, Depends(_period)],
    *,
    form: Format = "json",
) -> Response:
    """Lines that stand of orders that begin in `[from, to)`, and what they add up to.

    Totals are over the whole period, whatever page is shown; CSV holds every line. An
    operator names the organisation.
    """
    whose = viewer.organisation

    def read(connection: Connection) -> Response:
        lines = statement(connection, viewer, period)
        if form == "csv":
            return csv_response(lines_csv(each.line for each in lines), f"statement-{whose}")
        shown = statement_page(connection, viewer, page, period)
        body = {
            "organisation": whose, "from": period.start, "to": period.end,
            "totals": totals(lines, whose), "lines": shown.items,
        }  # fmt: skip
        return with_next(json_response(body), request, shown.following)

    return await services.read(read)


@router.post("/disputes", status_code=201, openapi_extra=KEYED)
async def open_dispute(
    body: DisputeBody, request: Request, services: Using, caller: Caller
) -> Response:
    """Object to a statement line as one of its sides."""
    caller.require("buyer", "seller")
    return await once(
        request, services, caller,
        lambda tx: services.market.dispute(tx, caller.viewer, body.line_id, body.reason),
        status=201,
    )  # fmt: skip


@router.get("/disputes")
async def list_disputes(
    request: Request,
    services: Using,
    caller: Caller,
    page: Paging,
    state: DisputeState | None = None,
) -> Response:
    """Disputes about lines that the caller is a side of; for an operator all of them."""
    found = await services.read(lambda c: disputes_page(c, caller.viewer, page, state))
    return page_response(request, found)


@router.get("/disputes/{dispute_id}")
async def read_dispute(dispute_id: str, services: Using, caller: Caller) -> Response:
    """One dispute."""
    return json_response(await services.read(lambda c: dispute(c, caller.viewer, dispute_id)))


@router.post("/disputes/{dispute_id}/resolve", openapi_extra=KEYED)
async def resolve_dispute(
    dispute_id: str, body: ResolutionBody, request: Request, services: Using, caller: Caller
) -> Response:
    """Decide a dispute, with the reason."""
    caller.require("operator")
    return await once(
        request, services, caller,
        lambda tx: services.market.resolve(
            tx, caller.viewer, dispute_id, accept=body.accept, resolution=body.reason
        ),
        status=200,
    )  # fmt: skip


def lines_csv(lines: Iterable[StatementLine]) -> str:
    """Statement lines as CSV, amounts exact."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    writer.writerows([getattr(line, column) for column in _COLUMNS] for line in lines)
    return text.getvalue()
