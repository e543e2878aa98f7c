"""What the routers may use, handed over by the bootstrap."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
from fastapi import Depends, Request, Response
from sqlalchemy import Engine, insert, select

from gateway.api.auth import Authenticator, Principal
from gateway.ingest import Ingest
from gateway.live import Live
from gateway.market import Market
from gateway.observability.health import Health
from gateway.observability.metrics import Metrics
from gateway.stages.intake import Intake
from gateway.store.readings import Readings
from gateway.store.tables import idempotency
from gateway.store.writer import Transaction, Writer
from gateway.webhooks import Webhooks
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.errors import RejectedError


@dataclass(frozen=True)
class Services:
    """Everything behind the API."""

    engine: Engine
    writer: Writer
    market: Market
    intake: Intake
    ingest: Ingest
    readings: Readings
    live: Live
    leases: Callable[[], dict[str, float]]
    profiles: Mapping[str, DeviceProfile]
    authenticator: Authenticator
    metrics: Metrics
    refresh_gauges: Callable[[], None]
    """Sets the gauges of `metrics` to what is now; called from a worker thread."""
    health: Health
    webhooks: Webhooks
    max_body_bytes: int
    verify_journal: Callable[[], msgspec.Struct]


def services_of(request: Request) -> Services:
    """FastAPI dependency: the services of this application."""
    services: Services = request.app.state.services
    return services


Using = Annotated[Services, Depends(services_of)]


def json_response(value: object, status: int = 200) -> Response:
    """A response with the JSON of core types."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def once(
    request: Request,
    services: Services,
    caller: Principal,
    work: Callable[[Transaction], object],
    *,
    status: int,
) -> Response:
    """Run a unit of work and answer once it is committed.

    With an `Idempotency-Key` the answer is kept in the same transaction, and a repeat of
    the request gets the same answer without doing anything.
    """
    key = request.headers.get("idempotency-key")
    fingerprint = request.method.encode() + request.url.path.encode() + await request.body()
    digest = hashlib.sha256(fingerprint).hexdigest()

    def unit(transaction: Transaction) -> bytes:
        if key is None:
            return msgspec.json.encode(work(transaction))
        kept = _kept(transaction, caller.organisation, key, digest)
        if kept is not None:
            return kept
        body = msgspec.json.encode(work(transaction))
        row = {"organisation": caller.organisation, "key": key, "request_hash": digest}
        transaction.connection.execute(insert(idempotency).values(**row, response=body.decode()))
        return body

    body = await services.writer.transact(unit)
    return Response(body, status, media_type="application/json")


def _kept(transaction: Transaction, organisation: str, key: str, digest: str) -> bytes | None:
    query = select(idempotency).where(
        idempotency.c.organisation == organisation, idempotency.c.key == key
    )
    row = transaction.connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.request_hash != digest:
        raise RejectedError(
            f"the key {key!r} was used for another request", field="Idempotency-Key",
            rule="one key stands for one request", remedy="use a new key",
        )  # fmt: skip
    response: str = row.response
    return response.encode()
