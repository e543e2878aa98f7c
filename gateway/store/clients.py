"""API clients of organisations: a salted hash of each secret, never the secret."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from gateway.store.engine import from_us, to_us
from gateway.store.tables import clients

ROLES: Final = ("buyer", "seller", "operator", "readonly")
KINDS: Final = ("secret", "key")
"""`secret`: exchanged for access tokens (OAuth2). `key`: sent with every request."""


class ClientRow(msgspec.Struct, frozen=True, kw_only=True):
    """A client as it is kept."""

    id: str
    organisation: str
    role: str
    kind: str
    label: str
    salt: bytes
    digest: bytes
    created: datetime
    revoked: datetime | None = None


def add_client(connection: Connection, client: ClientRow) -> None:
    """Keep a new client."""
    row = {
        "id": client.id, "organisation": client.organisation, "role": client.role,
        "kind": client.kind, "label": client.label, "salt": client.salt, "digest": client.digest,
        "created_us": to_us(client.created),
    }  # fmt: skip
    connection.execute(insert(clients).values(row))


def client_by_id(connection: Connection, client_id: str) -> ClientRow | None:
    """One client, revoked or not; None when there is none."""
    row = connection.execute(select(clients).where(clients.c.id == client_id)).one_or_none()
    return None if row is None else _client(row)


def list_clients(connection: Connection) -> list[ClientRow]:
    """Every client, by organisation and age."""
    query = select(clients).order_by(clients.c.organisation, clients.c.id)
    return [_client(row) for row in connection.execute(query)]


def revoke_client(connection: Connection, client_id: str, at: datetime) -> bool:
    """Shut a client out for good; False when there is no such client, or it was revoked before."""
    done = connection.execute(
        update(clients)
        .where(clients.c.id == client_id, clients.c.revoked_us.is_(None))
        .values(revoked_us=to_us(at))
    )
    return done.rowcount == 1


def _client(row: Row[tuple[object, ...]]) -> ClientRow:
    return ClientRow(
        id=row.id,
        organisation=row.organisation,
        role=row.role,
        kind=row.kind,
        label=row.label,
        salt=bytes(row.salt),
        digest=bytes(row.digest),
        created=from_us(row.created_us),
        revoked=None if row.revoked_us is None else from_us(row.revoked_us),
    )
