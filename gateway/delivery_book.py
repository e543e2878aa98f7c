"""Deliveries to webhooks and the endpoints they go to, in the market database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog
from sqlalchemy import Connection, Engine

from adapters.webhook.config import Attempt, Delivery, DeliveryStatus, Endpoint
from gateway.store.engine import run_read
from gateway.store.sealing import Sealer
from gateway.store.webhook_log import DeliveryRow, begin_attempt, end_delivery
from gateway.store.webhooks import WebhookRow, dispatch_webhook
from gateway.store.writer import Writer
from marketplace_core.errors import StoreError

Wall = Callable[[], datetime]
"""Wall time now, aware UTC."""
_log = structlog.get_logger(__name__)


class DeliveryBook:
    """The DeliveryLog of the courier, and the Directory of the adapter."""

    def __init__(self, *, engine: Engine, writer: Writer, sealer: Sealer, wall: Wall) -> None:
        self._engine = engine
        self._writer = writer
        self._sealer = sealer
        self._wall = wall

    async def attempting(self, delivery: Delivery) -> Attempt:
        """Commit that an attempt is about to be made. Raises StoreError."""
        row = self._row(delivery, DeliveryStatus.PENDING, "", None)
        number, body = await self._writer.transact(
            lambda tx: begin_attempt(
                tx.connection, row, webhook_id=delivery.endpoint.id, body=delivery.body
            )
        )
        return Attempt(number=number, body=body)

    async def ended(
        self, delivery: Delivery, status: DeliveryStatus, *, detail: str, latency_s: float | None
    ) -> None:
        """Commit how a delivery ended. Raises StoreError."""
        row = self._row(delivery, status, detail, latency_s)
        await self._writer.transact(
            lambda tx: end_delivery(
                tx.connection, row, webhook_id=delivery.endpoint.id,
                pending=DeliveryStatus.PENDING.value,
            )
        )  # fmt: skip

    async def dispatch_endpoint(self, organisation: str) -> Endpoint | None:
        """Where an organisation takes dispatches now, as the database says."""

        def read(connection: Connection) -> Endpoint | None:
            row = dispatch_webhook(connection, organisation)
            return None if row is None else self.usable(row)

        return await asyncio.to_thread(run_read, self._engine, read)

    def usable(self, row: WebhookRow) -> Endpoint | None:
        """As `endpoint`, or None and an error in the log: one bad row stops no one else."""
        try:
            return self.endpoint(row)
        except StoreError as error:
            _log.error("webhook_unusable", webhook=row.id, error=str(error))
            return None

    def endpoint(self, row: WebhookRow) -> Endpoint:
        """An endpoint with its secrets opened; StoreError when the key does not fit."""
        secrets = [self._sealer.open(row.secret, bound_to=row.id)]
        valid = row.previous_until is not None and row.previous_until > self._wall()
        if row.previous is not None and valid:
            secrets.append(self._sealer.open(row.previous, bound_to=row.id))
        return Endpoint(
            id=row.id, organisation=row.organisation, url=row.url, status_url=row.status_url,
            secrets=tuple(secrets),
        )  # fmt: skip

    def _row(
        self, delivery: Delivery, status: DeliveryStatus, detail: str, latency_s: float | None
    ) -> DeliveryRow:
        now = self._wall()
        return DeliveryRow(
            id=delivery.id, message_id=delivery.message_id, kind=delivery.kind,
            status=status.value, attempts=0, detail=detail,
            latency_ms=None if latency_s is None else round(latency_s * 1000),
            first_at=now, last_at=now,
        )  # fmt: skip
