"""Assets, meter history, needs, bids, auctions and contracts."""

from __future__ import annotations

from itertools import islice

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from gateway.api.auth import Caller, current_principal
from gateway.api.schemas import AssetBody, BidBody, NeedBody
from gateway.api.services import Services, Using, json_response, once
from gateway.store.market import assets_of, clearing_of, contracts_for, need_by_id
from marketplace_core.errors import RecordError
from marketplace_core.verification.bulk import parse_readings
from marketplace_core.verification.reading import Reading

router = APIRouter(prefix="/v1", tags=["market"])
_IMPORT_BATCH = 2_000
_MAX_ERRORS_SHOWN = 1_000


@router.put("/assets", status_code=200)
async def register_assets(
    body: list[AssetBody], request: Request, services: Using, caller: Caller
) -> Response:
    """Register or update a seller's assets, all or none."""
    caller.require("seller")
    assets = [item.asset(caller.organisation) for item in body]
    return await once(
        request, services, caller,
        lambda tx: services.market.register(tx, caller.organisation, assets), status=200,
    )  # fmt: skip


@router.get("/assets")
def list_assets(services: Using, caller: Caller) -> Response:
    """The caller's own assets."""
    with services.engine.connect() as connection:
        return json_response(assets_of(connection, caller.organisation))


@router.post("/readings/import")
async def import_readings(request: Request, services: Using, caller: Caller) -> Response:
    """Import meter history as CSV; a bad row is reported and the rest goes in.

    The answer comes once every good row is committed.
    """
    caller.require("seller")
    with services.engine.connect() as connection:
        meters = {asset.meter for asset in assets_of(connection, caller.organisation)}
    text = (await request.body()).decode("utf-8", errors="replace")
    accepted, errors = await _import(services, text, meters)
    shown = [
        {"line": e.line, "field": e.field, "error": e.message, "rule": e.rule, "remedy": e.remedy}
        for e in errors[:_MAX_ERRORS_SHOWN]
    ]
    return json_response({"accepted": accepted, "rejected": len(errors), "errors": shown})


@router.post("/needs", status_code=201)
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


@router.post("/needs/{need_id}/bids", status_code=201)
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


@router.post("/needs/{need_id}/clear", status_code=200)
async def clear_need(need_id: str, request: Request, services: Using, caller: Caller) -> Response:
    """Clear the auction of a need; every bid gets its reason."""
    caller.require("buyer")
    return await once(
        request, services, caller,
        lambda tx: services.market.clear(tx, caller.organisation, need_id), status=200,
    )  # fmt: skip


@router.get("/needs/{need_id}", dependencies=[Depends(current_principal)])
def read_need(need_id: str, services: Using) -> Response:
    """A need and, once cleared, what became of every bid: auction history is public."""
    with services.engine.connect() as connection:
        need, state = need_by_id(connection, need_id)
        clearing = clearing_of(connection, need_id)
    return json_response({"need": need, "state": state, "clearing": clearing})


@router.get("/needs/{need_id}/contracts")
def list_contracts(need_id: str, services: Using, caller: Caller) -> Response:
    """Contracts of a need that the caller is a side of."""
    with services.engine.connect() as connection:
        return json_response(contracts_for(connection, need_id, viewer=caller.viewer))


@router.post("/contracts/{contract_id}/sign", status_code=200)
async def sign_contract(
    contract_id: str, request: Request, services: Using, caller: Caller
) -> Response:
    """Sign a contract for the caller's organisation."""
    caller.require("buyer", "seller")
    return await once(
        request, services, caller,
        lambda tx: services.market.sign(tx, caller.organisation, contract_id), status=200,
    )  # fmt: skip


async def _import(services: Services, text: str, meters: set[str]) -> tuple[int, list[RecordError]]:
    accepted, errors = 0, list[RecordError]()
    try:
        parsed = parse_readings(text.splitlines(), meters)
        while chunk := list(islice(parsed, _IMPORT_BATCH)):
            good = [row for row in chunk if isinstance(row, Reading)]
            errors.extend(row for row in chunk if isinstance(row, RecordError))
            await services.ingest.store(good)
            accepted += len(good)
    except RecordError as error:
        raise HTTPException(422, f"line 1: {error.message}; {error.rule}") from error
    return accepted, errors
