"""Needs, bids, auctions and contracts."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.api.auth import Caller
from gateway.api.idempotency import KEYED, once
from gateway.api.paging import Paging, page_response
from gateway.api.schemas import BidBody, NeedBody
from gateway.api.services import Using, json_response
from gateway.store.statements import deliveries_page
from gateway.store.visible import (
    NeedFilter,
    auction,
    auctions_page,
    bid,
    bids_page,
    contract,
    contracts_page,
    need_view,
    needs_page,
)

router = APIRouter(prefix="/v1", tags=["market"])
_Filter = Annotated[str | None, Query(max_length=64)]


def _need_filter(
    state: Literal["open", "awarded"] | None = None, feeder: _Filter = None, buyer: _Filter = None
) -> NeedFilter:
    return NeedFilter(state=state, feeder=feeder, buyer=buyer)


@router.post("/needs", status_code=201, openapi_extra=KEYED)
async def publish_need(
    body: NeedBody, request: Request, services: Using, caller: Caller
) -> Response:
    """Publish a need."""
    caller.require("buyer")
    command = body.command()
    return await once(
        request, services, caller,
        lambda tx: services.market.publish(tx, caller.organisation, command), status=201,
    )  # fmt: skip


@router.get("/needs")
async def list_needs(
    request: Request,
    services: Using,
    _: Caller,
    page: Paging,
    wanted: Annotated[NeedFilter, Depends(_need_filter)],
) -> Response:
    """Every need, by id: needs are public."""
    return page_response(request, await services.read(lambda c: needs_page(c, page, wanted)))


@router.get("/needs/{need_id}")
async def read_need(need_id: str, services: Using, _: Caller) -> Response:
    """A need and, once cleared, what became of every bid: auction history is public."""
    return json_response(await services.read(lambda c: need_view(c, need_id)))


@router.post("/needs/{need_id}/bids", status_code=201, openapi_extra=KEYED)
async def place_bid(
    need_id: str, body: BidBody, request: Request, services: Using, caller: Caller
) -> Response:
    """Bid on a need."""
    caller.require("seller")
    command = body.command(need_id)
    return await once(
        request, services, caller,
        lambda tx: services.market.bid(tx, caller.organisation, command), status=201,
    )  # fmt: skip


@router.post("/needs/{need_id}/clear", status_code=200, openapi_extra=KEYED)
async def clear_need(need_id: str, request: Request, services: Using, caller: Caller) -> Response:
    """Clear the auction of a need; every bid gets its reason."""
    caller.require("buyer")
    return await once(
        request, services, caller,
        lambda tx: services.market.clear(tx, caller.organisation, need_id), status=200,
    )  # fmt: skip


@router.get("/needs/{need_id}/contracts")
async def list_contracts_of_need(
    need_id: str, request: Request, services: Using, caller: Caller, page: Paging
) -> Response:
    """Contracts of a need that the caller is a side of."""
    found = await services.read(lambda c: contracts_page(c, caller.viewer, page, need_id))
    return page_response(request, found)


@router.get("/bids")
async def list_bids(
    request: Request, services: Using, caller: Caller, page: Paging, need_id: _Filter = None
) -> Response:
    """The caller's own bids: they are sealed."""
    found = await services.read(lambda c: bids_page(c, caller.viewer, page, need_id))
    return page_response(request, found)


@router.get("/bids/{bid_id}")
async def read_bid(bid_id: str, services: Using, caller: Caller) -> Response:
    """One of the caller's own bids."""
    return json_response(await services.read(lambda c: bid(c, caller.viewer, bid_id)))


@router.get("/auctions")
async def list_auctions(request: Request, services: Using, _: Caller, page: Paging) -> Response:
    """Every cleared auction: what was asked, every bid's outcome and reason."""
    return page_response(request, await services.read(lambda c: auctions_page(c, page)))


@router.get("/auctions/{need_id}")
async def read_auction(need_id: str, services: Using, _: Caller) -> Response:
    """One cleared auction, by the id of its need."""
    return json_response(await services.read(lambda c: auction(c, need_id)))


@router.get("/contracts")
async def list_contracts(
    request: Request, services: Using, caller: Caller, page: Paging, need_id: _Filter = None
) -> Response:
    """Contracts that the caller is a side of."""
    found = await services.read(lambda c: contracts_page(c, caller.viewer, page, need_id))
    return page_response(request, found)


@router.get("/contracts/{contract_id}")
async def read_contract(contract_id: str, services: Using, caller: Caller) -> Response:
    """One contract that the caller is a side of."""
    return json_response(await services.read(lambda c: contract(c, caller.viewer, contract_id)))


@router.get("/contracts/{contract_id}/deliveries")
async def list_deliveries_of_contract(
    contract_id: str, request: Request, services: Using, caller: Caller, page: Paging
) -> Response:
    """Settlement periods of one contract: instructed, measured, delivered."""
    await services.read(lambda c: contract(c, caller.viewer, contract_id))
    found = await services.read(
        lambda c: deliveries_page(c, caller.viewer, page, contract_id=contract_id)
    )
    return page_response(request, found)


@router.post("/contracts/{contract_id}/sign", status_code=200, openapi_extra=KEYED)
async def sign_contract(
    contract_id: str, request: Request, services: Using, caller: Caller
) -> Response:
    """Sign a contract for the caller's organisation."""
    caller.require("buyer", "seller")
    return await once(
        request, services, caller,
        lambda tx: services.market.sign(tx, caller.organisation, contract_id), status=200,
    )  # fmt: skip
