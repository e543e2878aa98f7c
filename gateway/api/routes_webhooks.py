"""Webhooks of the caller's own organisation.

An answer that holds a secret is kept under its `Idempotency-Key` with the secret sealed. Who lost
a secret and sent no key rotates it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import Field

from gateway.api.auth import Caller, Principal
from gateway.api.idempotency import KEYED, replay_of
from gateway.api.paging import Paging, page_response
from gateway.api.schemas import Body
from gateway.api.services import Using, json_response
from gateway.store.webhooks import DISPATCH
from gateway.webhook_views import WebhookView

router = APIRouter(prefix="/v1", tags=["webhooks"])
_Url = Annotated[str, Field(max_length=2_048)]
_Event = Literal["dispatch", "order.planned", "order.infeasible", "order.rejected", "order.settled"]


class WebhookBody(Body):
    """An endpoint to register."""

    url: _Url = Field(min_length=1)
    status_url: _Url = ""
    """Base of `GET <status_url>/<order id>`, where the endpoint can be asked."""
    events: tuple[_Event, ...] = Field(min_length=1)


@router.post("/webhooks", status_code=201, openapi_extra=KEYED)
async def register_webhook(
    body: WebhookBody, request: Request, services: Using, caller: Caller
) -> Response:
    """Challenge an endpoint and register it; its secret is shown in this answer only."""
    _participant(caller)
    if DISPATCH in body.events:
        caller.require("seller")
    events = tuple(dict.fromkeys(body.events))
    view, secret = await services.webhooks.register(
        caller.organisation, await replay_of(request, caller),
        url=body.url, status_url=body.status_url, events=events,
    )  # fmt: skip
    return _with_secret(view, secret, 201)


@router.get("/webhooks")
async def list_webhooks(
    request: Request, services: Using, caller: Caller, page: Paging
) -> Response:
    """The caller's own webhooks."""
    caller.require_reader("buyer", "seller")
    owner = caller.organisation
    found = await services.reads.compute(lambda: services.webhooks.owned(owner, page))
    return page_response(request, found)


@router.delete("/webhooks/{webhook_id}", status_code=204)
async def delete_webhook(webhook_id: str, services: Using, caller: Caller) -> Response:
    """Forget a webhook, its secrets and its deliveries."""
    _participant(caller)
    await services.webhooks.remove(caller.organisation, webhook_id)
    return Response(status_code=204)


@router.post("/webhooks/{webhook_id}/rotate", openapi_extra=KEYED)
async def rotate_secret(
    webhook_id: str, request: Request, services: Using, caller: Caller
) -> Response:
    """Make a new secret; for a while messages carry a signature of the old one too."""
    _participant(caller)
    view, secret = await services.webhooks.rotate(
        caller.organisation, webhook_id, await replay_of(request, caller)
    )
    return _with_secret(view, secret, 200)


@router.post("/webhooks/{webhook_id}/test")
async def test_webhook(webhook_id: str, services: Using, caller: Caller) -> Response:
    """Send a ping now; how it was answered, and how fast."""
    _participant(caller)
    return json_response(await services.webhooks.test(caller.organisation, webhook_id))


@router.get("/webhooks/{webhook_id}/deliveries")
async def list_deliveries(
    webhook_id: str, request: Request, services: Using, caller: Caller, page: Paging
) -> Response:
    """The newest deliveries: status, attempts, latency, and what went wrong."""
    caller.require_reader("buyer", "seller")
    owner = caller.organisation
    found = await services.reads.compute(
        lambda: services.webhooks.deliveries(owner, webhook_id, page)
    )
    return page_response(request, found)


def _participant(caller: Principal) -> None:
    caller.require("buyer", "seller")


def _with_secret(view: WebhookView, secret: str, status: int) -> Response:
    response = json_response({**msgspec.structs.asdict(view), "secret": secret}, status)
    response.headers["cache-control"] = "no-store"
    return response
