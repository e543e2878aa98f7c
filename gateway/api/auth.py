"""Who is asking: bearer tokens, compared by hash; nobody passes without one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated

import msgspec
from fastapi import Depends, HTTPException, Request


class Principal(msgspec.Struct, frozen=True):
    """An authenticated client."""

    organisation: str
    role: str
    """`buyer`, `seller` or `operator`."""

    def require(self, *roles: str) -> None:
        """HTTPException 403 unless the client has one of the roles."""
        if self.role not in roles:
            raise HTTPException(403, f"this needs the role {' or '.join(roles)}")

    @property
    def viewer(self) -> str | None:
        """The predicate for reads: None sees everything (operators only)."""
        return None if self.role == "operator" else self.organisation


class Authenticator:
    """Finds the principal of a bearer token."""

    def __init__(self, clients: Iterable[tuple[str, Principal]]) -> None:
        """`clients`: pairs of the SHA-256 of a token in hex, and who holds it."""
        self._clients = dict(clients)

    def authenticate(self, request: Request) -> Principal:
        """The principal of a request; HTTPException 401 without a known token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        # Looking up a digest leaks no timing of the secret: it is the hash that is compared.
        digest = hashlib.sha256(token.encode()).hexdigest()
        principal = self._clients.get(digest)
        if scheme.lower() != "bearer" or principal is None:
            raise HTTPException(401, "a bearer token is needed")
        return principal


def current_principal(request: Request) -> Principal:
    """FastAPI dependency: who is asking."""
    authenticator: Authenticator = request.app.state.services.authenticator
    return authenticator.authenticate(request)


Caller = Annotated[Principal, Depends(current_principal)]
