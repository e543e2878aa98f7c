"""What the routers may use, handed over by the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
from fastapi import Depends, Response
from sqlalchemy import Connection, Engine
from starlette.requests import HTTPConnection

from gateway.api.auth import Authenticator
from gateway.confirm import Confirmations
from gateway.emergency import Emergency
from gateway.ingest import Ingest
from gateway.live import Live
from gateway.market import Market
from gateway.observability.health import Health
from gateway.observability.metrics import Metrics
from gateway.reads import Reads
from gateway.stages.intake import Intake
from gateway.store.readings import Readings
from gateway.store.writer import Writer
from gateway.streams import OrderStreams
from gateway.webhooks import Webhooks
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.intervals import SettlementGrid
from marketplace_core.ports import Clock

T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    """Everything behind the API."""

    engine: Engine
    reads: Reads
    writer: Writer
    clock: Clock
    grid: SettlementGrid
    market: Market
    intake: Intake
    confirmations: Confirmations
    emergency: Emergency
    streams: OrderStreams
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

    async def read(self, query: Callable[[Connection], T]) -> T:
        """A short read of the market database."""
        return await self.reads.run(query)


def services_of(connection: HTTPConnection) -> Services:
    """FastAPI dependency: the services of this application, for requests and web sockets."""
    services: Services = connection.app.state.services
    return services


Using = Annotated[Services, Depends(services_of)]


def json_response(value: object, status: int = 200) -> Response:
    """A response with the JSON of core types."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def csv_response(text: str, name: str) -> Response:
    """A response with CSV, to be saved under a name."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)
