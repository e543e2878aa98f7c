"""Webhook endpoints, and the tables of what is sent to them.

Everything that serves a participant takes its organisation as a predicate: what is not its
own is not found. Secrets stand sealed (`sealing.py`). Instants are wall time.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from gateway.store.engine import from_us, to_us
from gateway.store.paging import Page, Slice, rows_of
from gateway.store.tables import metadata
from marketplace_core.errors import NotFoundError, RejectedError

MOST_ENDPOINTS: Final = 10
"""Endpoints of one organisation."""
DISPATCH: Final = "dispatch"
"""The event whose messages command an aggregate."""

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organisation", String(64), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("status_url", Text, nullable=False),
    Column("events", Text, nullable=False),
    # the organisation when it takes dispatches here, else null: at most one endpoint does
    Column("dispatch_of", String(64)),
    Column("created_us", BigInteger, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("previous", LargeBinary),
    Column("previous_until_us", BigInteger),
    Index("ix_webhooks_dispatch_of", "dispatch_of", unique=True),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("webhook_id", String(64), nullable=False, index=True),
    Column("organisation", String(64), nullable=False),
    Column("message_id", String(128), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    Column("latency_ms", Integer),
    Column("first_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False),
)

webhook_outbox = Table(
    "webhook_outbox",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("webhook_id", String(64), nullable=False, index=True),
    Column("event", String(32), nullable=False),
    Column("message_id", String(128), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("since_us", BigInteger, nullable=False),
)


class WebhookRow(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint; its secrets are sealed."""

    id: str
    organisation: str
    url: str
    status_url: str
    events: tuple[str, ...]
    created: datetime
    secret: bytes
    previous: bytes | None = None
    previous_until: datetime | None = None
    """Until when messages are signed with the previous secret too."""


def add_webhook(connection: Connection, row: WebhookRow) -> None:
    """Keep an endpoint; RejectedError when the organisation has too many, or two for dispatch."""
    mine = webhooks_of(connection, row.organisation)
    if len(mine) >= MOST_ENDPOINTS:
        raise RejectedError(
            f"{row.organisation} has {len(mine)} webhooks", field="url",
            rule=f"at most {MOST_ENDPOINTS} webhooks per organisation", remedy="delete one",
        )  # fmt: skip
    dispatching = DISPATCH in row.events
    if dispatching and any(DISPATCH in other.events for other in mine):
        raise RejectedError(
            f"{row.organisation} takes dispatches at another webhook", field="events",
            rule="one webhook of an organisation takes dispatches", remedy="delete the other first",
        )  # fmt: skip
    values = {
        "id": row.id, "organisation": row.organisation, "url": row.url,
        "status_url": row.status_url, "events": " ".join(row.events),
        "dispatch_of": row.organisation if dispatching else None,
        "created_us": to_us(row.created), "secret": row.secret,
    }  # fmt: skip
    connection.execute(insert(webhooks).values(values))


def webhooks_of(connection: Connection, organisation: str) -> list[WebhookRow]:
    """Every endpoint of one organisation, oldest first."""
    query = select(webhooks).where(webhooks.c.organisation == organisation)
    rows = connection.execute(query.order_by(webhooks.c.created_us, webhooks.c.id))
    return [webhook_of(row) for row in rows]


def webhooks_page(connection: Connection, organisation: str, page: Page) -> Slice[WebhookRow]:
    """Endpoints of one organisation, oldest first."""
    query = select(webhooks).where(webhooks.c.organisation == organisation)
    found = rows_of(connection, query, page, webhooks.c.created_us, webhooks.c.id)
    return Slice([webhook_of(row) for row in found.items], found.following)


def webhook_by_id(connection: Connection, organisation: str, webhook_id: str) -> WebhookRow:
    """One endpoint of an organisation; NotFoundError when it has none of this id."""
    query = select(webhooks).where(
        webhooks.c.id == webhook_id, webhooks.c.organisation == organisation
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError("webhook", webhook_id)
    return webhook_of(row)


def subscribers(
    connection: Connection, event: str, organisations: Collection[str]
) -> list[WebhookRow]:
    """Endpoints of some organisations that take an event."""
    query = select(webhooks).where(webhooks.c.organisation.in_(organisations))
    found = [webhook_of(row) for row in connection.execute(query.order_by(webhooks.c.id))]
    return [row for row in found if event in row.events]


def dispatch_webhook(connection: Connection, organisation: str) -> WebhookRow | None:
    """The endpoint that takes the dispatches of an organisation."""
    query = select(webhooks).where(webhooks.c.dispatch_of == organisation)
    row = connection.execute(query).one_or_none()
    return None if row is None else webhook_of(row)


def replace_secret(
    connection: Connection, row: WebhookRow, *, secret: bytes, previous_until: datetime
) -> None:
    """Make `secret` the newest one; the one before stays valid until an instant."""
    values = {
        "secret": secret, "previous": row.secret, "previous_until_us": to_us(previous_until),
    }  # fmt: skip
    connection.execute(
        update(webhooks)
        .where(webhooks.c.id == row.id, webhooks.c.organisation == row.organisation)
        .values(values)
    )


def remove_webhook(connection: Connection, organisation: str, webhook_id: str) -> None:
    """Forget an endpoint, its secrets, its deliveries and what waited for it."""
    row = webhook_by_id(connection, organisation, webhook_id)
    connection.execute(delete(webhooks).where(webhooks.c.id == row.id))
    for table in (webhook_deliveries, webhook_outbox):
        connection.execute(delete(table).where(table.c.webhook_id == row.id))


def webhook_of(row: Row[tuple[object, ...]]) -> WebhookRow:
    """A row of `webhooks`."""
    until = row.previous_until_us
    return WebhookRow(
        id=row.id, organisation=row.organisation, url=row.url, status_url=row.status_url,
        events=tuple(row.events.split()), created=from_us(row.created_us),
        secret=bytes(row.secret),
        previous=None if row.previous is None else bytes(row.previous),
        previous_until=None if until is None else from_us(until),
    )  # fmt: skip
