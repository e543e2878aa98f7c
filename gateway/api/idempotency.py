"""Idempotency keys: a repeat gets the answer of the first time and does nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from fastapi import Request, Response
from sqlalchemy import Connection, insert, select

from gateway.api.auth import Principal
from gateway.api.services import Services
from gateway.store.tables import idempotency
from gateway.store.writer import Transaction
from marketplace_core.errors import RejectedError, RequestError

_LONGEST: Final = 128
KEYED: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "Idempotency-Key", "in": "header", "required": False,
            "description": "A repeat with the same key gets the same answer and does nothing",
            "schema": {"type": "string", "minLength": 1, "maxLength": _LONGEST},
        }
    ]
}  # fmt: skip
"""What the OpenAPI document says of an operation that takes a key."""


class Replay:
    """The key of one request and the answer that is kept under it."""

    def __init__(self, organisation: str, key: str | None, digest: str) -> None:
        self._organisation = organisation
        self._key = key
        self._digest = digest

    def kept(self, connection: Connection) -> bytes | None:
        """The answer of the first time; RejectedError when the key stood for something else."""
        if self._key is None:
            return None
        query = select(idempotency).where(
            idempotency.c.organisation == self._organisation, idempotency.c.key == self._key
        )
        row = connection.execute(query).one_or_none()
        if row is None:
            return None
        if row.request_hash != self._digest:
            raise RejectedError(
                f"the key {self._key!r} was used for another request", field="Idempotency-Key",
                rule="one key stands for one request", remedy="use a new key",
            )  # fmt: skip
        response: str = row.response
        return response.encode()

    def keep(self, connection: Connection, body: bytes) -> None:
        """Keep an answer, in the transaction of what it answers."""
        if self._key is None or self.kept(connection) is not None:
            return
        connection.execute(
            insert(idempotency).values(
                organisation=self._organisation, key=self._key, request_hash=self._digest,
                response=body.decode(),
            )
        )  # fmt: skip

    def keep_first(self, connection: Connection, body: bytes) -> bytes:
        """Keep an answer unless one is kept; the one that is kept then."""
        kept = self.kept(connection)
        if kept is None:
            self.keep(connection, body)
        return body if kept is None else kept


async def replay_of(request: Request, caller: Principal) -> Replay:
    """What a repeat of this request would find. RequestError when the key cannot be one."""
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= _LONGEST and key.isascii() and key.isprintable()):
        raise RequestError(
            f"a key of {len(key)} characters, or of these, cannot be kept", field="Idempotency-Key",
            rule=f"1 to {_LONGEST} printable ASCII characters",
        )  # fmt: skip
    parts = (request.method, request.url.path, request.url.query)
    fingerprint = "\n".join(parts).encode() + b"\n" + await request.body()
    return Replay(caller.organisation, key, hashlib.sha256(fingerprint).hexdigest())


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
    replay = await replay_of(request, caller)

    def unit(transaction: Transaction) -> bytes:
        kept = replay.kept(transaction.connection)
        if kept is not None:
            return kept
        body = msgspec.json.encode(work(transaction))
        replay.keep(transaction.connection, body)
        return body

    body = await services.writer.transact(unit)
    return Response(body, status, media_type="application/json")


async def once_elsewhere(
    request: Request,
    services: Services,
    caller: Principal,
    work: Callable[[], Awaitable[object]],
) -> Response:
    """The same for work that is durable elsewhere and changes nothing when it is repeated.

    The answer is kept after it: who repeats a request that was cut off in between has it
    done again, and is told what that came to.
    """
    replay = await replay_of(request, caller)
    body = await services.read(replay.kept)
    if body is None:
        made = msgspec.json.encode(await work())
        body = await services.writer.transact(lambda tx: replay.keep_first(tx.connection, made))
    return Response(body, media_type="application/json")
