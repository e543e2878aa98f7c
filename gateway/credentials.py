"""Secrets of API clients and of the server: made, hashed, signed; never kept or logged in clear."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.store.clients import ClientRow

Claim = TypeVar("Claim", bound=msgspec.Struct)
KEY_PREFIX: Final = "fwk_"
TOKEN_PREFIX: Final = "fwt_"  # noqa: S105 - a mark of the kind, no secret
_SECRET_PREFIX: Final = "fws_"  # noqa: S105 - the same
_COST: Final = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}
"""scrypt: 16 MiB and some tens of milliseconds for each guess."""


def new_client(
    *,
    organisation: str,
    role: str,
    kind: str,
    label: str,
    new_id: Callable[[str], str],
    at: datetime,
) -> tuple[ClientRow, str]:
    """A client and the secret to show once: a client secret, or a whole API key."""
    client_id, secret, salt = new_id("cli"), secrets.token_urlsafe(32), secrets.token_bytes(16)
    row = ClientRow(
        id=client_id, organisation=organisation, role=role, kind=kind, label=label, salt=salt,
        digest=_digest(secret, salt), created=at,
    )  # fmt: skip
    if kind == "key":
        return row, f"{KEY_PREFIX}{client_id.partition('_')[2]}_{secret}"
    return row, f"{_SECRET_PREFIX}{secret}"


def split_key(key: str) -> tuple[str, str]:
    """Client id and secret of an API key; empty strings when it is none."""
    number, separator, secret = key.removeprefix(KEY_PREFIX).partition("_")
    if not key.startswith(KEY_PREFIX) or not separator:
        return "", ""
    return f"cli_{number}", secret


def matches(row: ClientRow, secret: str) -> bool:
    """Whether a secret is the client's, in constant time. Takes the time of one hash."""
    return hmac.compare_digest(_digest(secret.removeprefix(_SECRET_PREFIX), row.salt), row.digest)


def waste_a_hash(secret: str) -> None:
    """Take as long as `matches`, so that unknown ids are not told from wrong secrets."""
    _digest(secret, bytes(16))


def derived_secret(key: Ed25519PrivateKey, purpose: str) -> bytes:
    """A secret of 32 bytes for one purpose, derived from the service's signing key (HKDF)."""
    info = f"flexway {purpose}".encode()
    return HKDF(SHA256(), 32, salt=None, info=info).derive(key.private_bytes_raw())


class Signer:
    """Signs small claims so that they can be handed out and taken back (HMAC-SHA-256)."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is for one purpose only: what one signer signs no other accepts."""
        self._secret = secret

    def sign(self, claim: msgspec.Struct) -> str:
        """The claim and its signature as one URL-safe word."""
        payload = msgspec.json.encode(claim, order="deterministic")
        return f"{_word(payload)}.{_word(self._mac(payload))}"

    def open(self, word: str, kind: type[Claim]) -> Claim | None:
        """The claim of a word; None when it is not one that this signer signed."""
        payload, _, mac = word.partition(".")
        try:
            data = _bytes(payload)
            if not hmac.compare_digest(self._mac(data), _bytes(mac)):
                return None
            return msgspec.json.decode(data, type=kind)
        except ValueError:  # not base 64, not the claim
            return None

    def _mac(self, payload: bytes) -> bytes:
        return hmac.new(self._secret, payload, hashlib.sha256).digest()


def _digest(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, **_COST)


def _word(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(word: str) -> bytes:
    return base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True)
