"""Who is asking: bearer tokens, API keys and access tokens; nobody passes without one."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Annotated, Final

import msgspec
from fastapi import Depends, HTTPException, Request, Security
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlows
from fastapi.security import HTTPBearer, OAuth2
from sqlalchemy import Connection

from gateway.credentials import KEY_PREFIX, TOKEN_PREFIX, Signer, matches, split_key, waste_a_hash
from gateway.reads import Reads
from gateway.store.clients import ClientRow, client_by_id
from gateway.store.organisations import is_suspended
from gateway.store.viewer import Viewer

_REMEMBERED: Final = 10_000
"""API keys whose hash was computed, kept so that not every request pays for it."""
_WINDOW_S: Final = 60.0
"""Wall seconds over which failed logins are counted."""
_READERS: Final = "readonly"


class Principal(msgspec.Struct, frozen=True):
    """An authenticated client."""

    organisation: str
    role: str
    """`buyer`, `seller`, `operator` or `readonly`."""

    def require(self, *roles: str) -> None:
        """HTTPException 403 unless the client has one of the roles."""
        if self.role not in roles:
            raise HTTPException(403, f"this needs the role {' or '.join(roles)}")

    def require_reader(self, *roles: str) -> None:
        """The same for what a read-only client may look at too."""
        self.require(*roles, _READERS)

    @property
    def viewer(self) -> Viewer:
        """The predicate of every read: an operator sees everything."""
        return Viewer(self.organisation, everything=self.role == "operator")


class AccessClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What an access token says; organisation and role are looked up when it is used."""

    client: str
    expires: float
    """Unix seconds."""


class FailedLogins:
    """Counts failures per address, so that secrets cannot be guessed at speed."""

    def __init__(self, most: int, monotonic: Callable[[], float]) -> None:
        """`most` failures are allowed per address and minute."""
        self._most = most
        self._monotonic = monotonic
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """HTTPException 429 while an address has failed too often."""
        now = self._monotonic()
        recent = [at for at in self._failures.get(address, []) if now - at < _WINDOW_S]
        if len(recent) >= self._most:
            wait = max(1, round(_WINDOW_S - (now - recent[0])))
            raise HTTPException(
                429, "too many failed logins from this address", {"Retry-After": str(wait)}
            )

    def failed(self, address: str) -> None:
        """Count one failure."""
        now = self._monotonic()
        recent = [at for at in self._failures.pop(address, []) if now - at < _WINDOW_S]
        self._failures[address] = [*recent, now][-self._most :]
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)


class Authenticator:
    """Finds the principal of whatever a client sends along."""

    def __init__(
        self,
        clients: Iterable[tuple[str, Principal]],
        *,
        reads: Reads,
        signer: Signer,
        unix_now: Callable[[], float],
        failures: FailedLogins,
        token_for_s: float = 3600.0,
    ) -> None:
        """`clients`: pairs of the SHA-256 of a token in hex, and who holds it.

        `token_for_s`: how long an access token is good for.
        """
        self._clients = dict(clients)
        self._reads = reads
        self._signer = signer
        self._unix_now = unix_now
        self._failures = failures
        self._token_for_s = token_for_s
        self._salt = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, bytes] = OrderedDict()

    async def authenticate(self, authorization: str, address: str) -> Principal:
        """The principal of an Authorization header.

        HTTPException: 401 without a known token, 403 for a suspended organisation, 429 when
        the address has failed too often.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise HTTPException(401, "a bearer token is needed")
        principal = await self._principal(token.strip(), address)
        if principal is None:
            self._failures.check(address)
            self._failures.failed(address)
            raise HTTPException(401, "the bearer token is not known, or no longer good")
        organisation = principal.organisation
        if await self._reads.run(lambda connection: is_suspended(connection, organisation)):
            raise HTTPException(403, f"organisation {organisation} is suspended")
        return principal

    async def exchange(self, client_id: str, secret: str, address: str) -> tuple[ClientRow, str]:
        """The client and an access token for its secret; HTTPException 401 when it is wrong."""
        self._failures.check(address)
        row = await self._reads.run(lambda connection: client_by_id(connection, client_id))
        good = await self._is_secret(row, secret, "secret")
        if row is None or not good:
            self._failures.failed(address)
            raise HTTPException(401, "the client or its secret is not known")
        claim = AccessClaim(client=client_id, expires=self._unix_now() + self._token_for_s)
        return row, TOKEN_PREFIX + self._signer.sign(claim)

    @property
    def token_for_s(self) -> float:
        """How long an access token is good for."""
        return self._token_for_s

    async def _principal(self, token: str, address: str) -> Principal | None:
        if token.startswith(TOKEN_PREFIX):
            claim = self._signer.open(token.removeprefix(TOKEN_PREFIX), AccessClaim)
            if claim is None or claim.expires <= self._unix_now():
                return None
            return _of(await self._row(claim.client))
        if token.startswith(KEY_PREFIX):
            return await self._of_key(token, address)
        # Looking up a digest leaks no timing of the secret: it is the hash that is compared.
        return self._clients.get(hashlib.sha256(token.encode()).hexdigest())

    async def _of_key(self, key: str, address: str) -> Principal | None:
        client_id, secret = split_key(key)
        row = await self._row(client_id)
        mark = hmac.new(self._salt, key.encode(), hashlib.sha256).digest()
        if row is not None and self._known.get(mark) == row.digest:
            return _of(row)
        self._failures.check(address)
        if row is None or not await self._is_secret(row, secret, "key"):
            return None
        self._known[mark] = row.digest
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return _of(row)

    async def _row(self, client_id: str) -> ClientRow | None:
        return await self._reads.run(lambda connection: _valid(connection, client_id))

    async def _is_secret(self, row: ClientRow | None, secret: str, kind: str) -> bool:
        if row is None or row.revoked is not None or row.kind != kind:
            await self._reads.compute(lambda: waste_a_hash(secret))
            return False
        return await self._reads.compute(lambda: matches(row, secret))


def _valid(connection: Connection, client_id: str) -> ClientRow | None:
    row = client_by_id(connection, client_id)
    return None if row is None or row.revoked is not None else row


def _of(row: ClientRow | None) -> Principal | None:
    return None if row is None else Principal(row.organisation, row.role)


_BEARER = HTTPBearer(auto_error=False, description="A configured token, an API key `fwk_...`")
_OAUTH = OAuth2(
    flows=OAuthFlows(clientCredentials=OAuthFlowClientCredentials(tokenUrl="/oauth/token")),
    auto_error=False,
)


async def current_principal(
    request: Request,
    _bearer: Annotated[object, Security(_BEARER)],
    _oauth: Annotated[object, Security(_OAUTH)],
) -> Principal:
    """FastAPI dependency: who is asking."""
    authenticator: Authenticator = request.app.state.services.authenticator
    return await authenticator.authenticate(
        request.headers.get("authorization", ""), address_of(request.client)
    )


def address_of(client: object) -> str:
    """The address of a caller, as far as the server knows it."""
    return str(getattr(client, "host", ""))


Caller = Annotated[Principal, Depends(current_principal)]
