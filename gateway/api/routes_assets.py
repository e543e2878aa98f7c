"""Assets: JSON and CSV, in and out."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response

from gateway.api.auth import Caller
from gateway.api.idempotency import KEYED, once, replay_of
from gateway.api.paging import Paging, page_response
from gateway.api.schemas import AssetBody
from gateway.api.services import Services, Using, csv_response, json_response
from gateway.store.registry import asset, assets_page, every_asset
from gateway.store.writer import Transaction
from marketplace_core.errors import RecordError, RejectedError
from marketplace_core.registry.asset import Asset
from marketplace_core.registry.bulk import parse_assets, write_assets

router = APIRouter(prefix="/v1/assets", tags=["assets"])
_BATCH = 1_000
"""Assets that one transaction registers: an import holds nobody else up."""
_MAX_ERRORS_SHOWN = 1_000
_Filter = Annotated[str | None, Query(max_length=64)]


@router.put("", status_code=200, openapi_extra=KEYED)
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


@router.get("")
async def list_assets(
    request: Request, services: Using, caller: Caller, page: Paging, feeder: _Filter = None
) -> Response:
    """The caller's own assets; for an operator all of them."""
    found = await services.read(lambda c: assets_page(c, caller.viewer, page, feeder))
    return page_response(request, found)


@router.get("/export")
async def export_assets(services: Using, caller: Caller) -> Response:
    """The caller's own assets as CSV, in the form that the import takes."""
    text = await services.read(lambda c: write_assets(every_asset(c, caller.viewer)))
    return csv_response(text, "assets")


@router.post(
    "/import", openapi_extra={**KEYED, "requestBody": {"content": {"text/csv": {"schema": {}}}}}
)
async def import_assets(
    request: Request,
    services: Using,
    caller: Caller,
    *,
    dry_run: Annotated[bool, Query(description="Only say what would be refused")] = False,
) -> Response:
    """Register assets from CSV; a bad row is reported and the rest goes in.

    Importing the same file again changes nothing.
    """
    caller.require("seller")
    replay = await replay_of(request, caller)
    kept = await services.read(replay.kept)
    if kept is not None:
        return Response(kept, media_type="application/json")
    text = (await request.body()).decode("utf-8-sig", errors="replace")
    accepted, errors = await _import(services, text, caller.organisation, dry=dry_run)
    report = msgspec.json.encode(
        {
            "dry_run": dry_run, "accepted": accepted, "rejected": len(errors),
            "errors": [_shown(error) for error in errors[:_MAX_ERRORS_SHOWN]],
        }
    )  # fmt: skip
    await services.writer.transact(lambda tx: replay.keep(tx.connection, report))
    return Response(report, media_type="application/json")


@router.get("/{asset_id}")
async def read_asset(asset_id: str, services: Using, caller: Caller) -> Response:
    """One of the caller's own assets."""
    return json_response(await services.read(lambda c: asset(c, caller.viewer, asset_id)))


async def _import(
    services: Services, text: str, organisation: str, *, dry: bool
) -> tuple[int, list[RecordError]]:
    accepted, errors = 0, list[RecordError]()
    parsed = parse_assets(text.splitlines(), organisation)
    while chunk := list(islice(parsed, _BATCH)):
        errors += [row for row in chunk if isinstance(row, RecordError)]
        good = [row for row in chunk if not isinstance(row, RecordError)]
        refused = await _register(services, organisation, [each for _, each in good], dry=dry)
        lines = {each.id: line for line, each in good}
        errors += [_at(lines[name], error) for name, error in refused.items()]
        accepted += len(good) - len(refused)
    return accepted, sorted(errors, key=lambda error: error.line)


async def _register(
    services: Services, organisation: str, assets: list[Asset], *, dry: bool
) -> dict[str, RejectedError]:
    def work(transaction: Transaction) -> dict[str, RejectedError]:
        return services.market.register_valid(transaction, organisation, assets, dry=dry)

    return await services.writer.transact(work)


def _at(line: int, error: RejectedError) -> RecordError:
    return RecordError(
        error.message, line=line, field=error.field, rule=error.rule, remedy=error.remedy
    )


def _shown(error: RecordError) -> dict[str, object]:
    return {
        "line": error.line, "field": error.field, "error": error.message, "rule": error.rule,
        "remedy": error.remedy,
    }  # fmt: skip
