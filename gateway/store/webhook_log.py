"""Deliveries to webhooks, and notifications that wait for theirs. Instants are wall time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from gateway.store.engine import from_us, to_us
from gateway.store.paging import Page, Slice, rows_of
from gateway.store.webhooks import (
    WebhookRow,
    webhook_deliveries,
    webhook_of,
    webhook_outbox,
    webhooks,
)

KEPT_DELIVERIES: Final = 100
"""Ended deliveries that are kept of each endpoint."""


class DeliveryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery as its organisation sees it."""

    id: str
    message_id: str
    kind: str
    status: str
    attempts: int
    detail: str
    latency_ms: int | None
    first_at: datetime
    last_at: datetime


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A notification that waits to be sent."""

    number: int
    webhook_id: str
    event: str
    message_id: str
    body: bytes
    since: datetime


def begin_attempt(
    connection: Connection, delivery: DeliveryRow, *, webhook_id: str, body: bytes
) -> tuple[int, bytes]:
    """Note that an attempt is about to be made; its number, and the first attempt's body."""
    found = select(webhook_deliveries.c.attempts, webhook_deliveries.c.body).where(
        webhook_deliveries.c.id == delivery.id
    )
    known = connection.execute(found).one_or_none()
    if known is not None:
        values = {"attempts": known.attempts + 1, "last_us": to_us(delivery.last_at),
                  "status": delivery.status}  # fmt: skip
        connection.execute(
            update(webhook_deliveries).where(webhook_deliveries.c.id == delivery.id).values(values)
        )
        return known.attempts + 1, bytes(known.body)
    owner = select(webhooks.c.organisation).where(webhooks.c.id == webhook_id)
    organisation = connection.scalar(owner)
    if organisation is not None:  # else it was deleted meanwhile: nobody could read the row
        row = {
            "id": delivery.id, "webhook_id": webhook_id, "organisation": organisation,
            "message_id": delivery.message_id, "kind": delivery.kind, "body": body,
            "status": delivery.status, "attempts": 1, "detail": "",
            "first_us": to_us(delivery.first_at), "last_us": to_us(delivery.last_at),
        }  # fmt: skip
        connection.execute(insert(webhook_deliveries).values(row))
    return 1, body


def end_delivery(
    connection: Connection, ended: DeliveryRow, *, webhook_id: str, pending: str
) -> None:
    """Note how a delivery ended; of what ended before, only the newest are kept.

    `pending` is the status of deliveries that have not ended: they are never forgotten.
    """
    table = webhook_deliveries
    connection.execute(
        update(table)
        .where(table.c.id == ended.id)
        .values(status=ended.status, detail=ended.detail, latency_ms=ended.latency_ms,
                last_us=to_us(ended.last_at))
    )  # fmt: skip
    old = (
        select(table.c.id)
        .where(table.c.webhook_id == webhook_id, table.c.status != pending)
        .order_by(table.c.last_us.desc(), table.c.id)
        .offset(KEPT_DELIVERIES)
    )
    forgotten = [row.id for row in connection.execute(old)]
    if forgotten:
        connection.execute(delete(table).where(table.c.id.in_(forgotten)))


def deliveries_page(
    connection: Connection, organisation: str, webhook_id: str, page: Page
) -> Slice[DeliveryRow]:
    """Deliveries to an endpoint of an organisation, by their first attempt, newest first."""
    table = webhook_deliveries
    query = select(table).where(
        table.c.webhook_id == webhook_id, table.c.organisation == organisation
    )
    found = rows_of(connection, query, page, table.c.first_us, table.c.id, newest_first=True)
    rows = [
        DeliveryRow(
            id=row.id, message_id=row.message_id, kind=row.kind, status=row.status,
            attempts=row.attempts, detail=row.detail, latency_ms=row.latency_ms,
            first_at=from_us(row.first_us), last_at=from_us(row.last_us),
        )
        for row in found.items
    ]  # fmt: skip
    return Slice(rows, found.following)


def enqueue(connection: Connection, rows: Sequence[Waiting]) -> None:
    """Let notifications wait; `number` is given by the database, in this order."""
    for row in rows:
        values = {
            "webhook_id": row.webhook_id, "event": row.event, "message_id": row.message_id,
            "body": row.body, "since_us": to_us(row.since),
        }  # fmt: skip
        connection.execute(insert(webhook_outbox).values(values))


def first_waiting(connection: Connection) -> list[tuple[WebhookRow, Waiting]]:
    """Of each endpoint the oldest notification that waits."""
    table = webhook_outbox
    first = select(func.min(table.c.number)).group_by(table.c.webhook_id)
    query = select(table).where(table.c.number.in_(first))
    waiting = {row.webhook_id: row for row in connection.execute(query)}
    owners = select(webhooks).where(webhooks.c.id.in_(waiting))
    return [
        (webhook_of(owner), _waiting(waiting[owner.id])) for owner in connection.execute(owners)
    ]


def dequeue(connection: Connection, number: int) -> None:
    """A notification need not wait any more."""
    connection.execute(delete(webhook_outbox).where(webhook_outbox.c.number == number))


def _waiting(row: Row[tuple[object, ...]]) -> Waiting:
    return Waiting(
        number=row.number, webhook_id=row.webhook_id, event=row.event,
        message_id=row.message_id, body=bytes(row.body), since=from_us(row.since_us),
    )  # fmt: skip
