"""Confirm tokens that were used. They stand among the idempotency keys: both are used once."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, insert, select

from gateway.store.tables import idempotency

_PREFIX: Final = "confirm\n"
"""No key that a client sends holds a line break: none can be taken for a token, or take its row."""


def order_confirmed_by(connection: Connection, buyer: str, number: str) -> str | None:
    """Id of the order that was made with a token; `number` is the token's SHA-256 in hex."""
    query = select(idempotency.c.response).where(
        idempotency.c.organisation == buyer, idempotency.c.key == _PREFIX + number
    )
    order_id: str | None = connection.scalar(query)
    return order_id


def use_confirmation(connection: Connection, buyer: str, number: str, order_id: str) -> None:
    """Use a token up, in the transaction of its order."""
    row = {"organisation": buyer, "key": _PREFIX + number, "request_hash": number,
           "response": order_id}  # fmt: skip
    connection.execute(insert(idempotency).values(row))
