"""What was found wrong with devices."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gateway.api.auth import Caller
from gateway.api.paging import Paging, page_response
from gateway.api.services import Using
from gateway.store.flags import flags_page

router = APIRouter(prefix="/v1", tags=["operations"])


@router.get("/flags")
async def list_flags(
    request: Request,
    services: Using,
    caller: Caller,
    page: Paging,
    order: str | None = None,
) -> Response:
    """Findings about the caller's own devices, for an operator all, by time.

    With `order`, those that were made during one order.
    """
    caller.require_reader("seller", "operator")
    found = await services.read(lambda c: flags_page(c, caller.viewer, page, order))
    return page_response(request, found)
