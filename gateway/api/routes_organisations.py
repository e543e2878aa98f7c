"""Organisations: read one's own; an operator lets in, suspends and reinstates."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gateway.api.auth import Caller
from gateway.api.idempotency import KEYED, once
from gateway.api.paging import Paging, page_response
from gateway.api.schemas import OrganisationBody, SuspensionBody
from gateway.api.services import Using, json_response
from gateway.store.organisations import Organisation, organisation, organisations_page
from gateway.store.writer import Transaction

router = APIRouter(prefix="/v1/organisations", tags=["organisations"])


@router.get("")
async def list_organisations(
    request: Request, services: Using, caller: Caller, page: Paging
) -> Response:
    """One's own organisation; for an operator all of them."""
    found = await services.read(lambda c: organisations_page(c, caller.viewer, page))
    return page_response(request, found)


@router.get("/{organisation_id}")
async def read_organisation(organisation_id: str, services: Using, caller: Caller) -> Response:
    """One organisation."""
    return json_response(
        await services.read(lambda c: organisation(c, caller.viewer, organisation_id))
    )


@router.post("", status_code=201, openapi_extra=KEYED)
async def create_organisation(
    body: OrganisationBody, request: Request, services: Using, caller: Caller
) -> Response:
    """Let an organisation in."""
    caller.require("operator")

    def work(transaction: Transaction) -> Organisation:
        services.market.admit(transaction, caller.organisation, body.id, body.name)
        return organisation(transaction.connection, caller.viewer, body.id)

    return await once(request, services, caller, work, status=201)


@router.post("/{organisation_id}/suspend", openapi_extra=KEYED)
async def suspend_organisation(
    organisation_id: str, body: SuspensionBody, request: Request, services: Using, caller: Caller
) -> Response:
    """Shut an organisation out: every request of its clients is answered 403."""
    caller.require("operator")

    def work(transaction: Transaction) -> Organisation:
        services.market.suspend(transaction, caller.organisation, organisation_id, body.reason)
        return organisation(transaction.connection, caller.viewer, organisation_id)

    return await once(request, services, caller, work, status=200)


@router.post("/{organisation_id}/reinstate", openapi_extra=KEYED)
async def reinstate_organisation(
    organisation_id: str, request: Request, services: Using, caller: Caller
) -> Response:
    """Let a suspended organisation in again."""
    caller.require("operator")

    def work(transaction: Transaction) -> Organisation:
        services.market.reinstate(transaction, caller.organisation, organisation_id)
        return organisation(transaction.connection, caller.viewer, organisation_id)

    return await once(request, services, caller, work, status=200)
