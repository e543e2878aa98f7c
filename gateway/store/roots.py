"""Signed roots over the journal's heads, kept outside the database.

One JSON line per root: market time, the head (sequence, hash) of every shard, the
hash of the root before it, and an Ed25519 signature over the canonical JSON of the
rest. Who can rewrite the database but not sign cannot hide it from `verify`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from marketplace_core.errors import ConfigError, StoreError


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """One signed statement of where every chain stood."""

    at: datetime
    heads: dict[str, tuple[int, str]]
    """Shard -> (sequence, hash in hex)."""
    previous: str
    """SHA-256 of the line before, in hex; empty for the first."""
    signature: str = ""
    """Ed25519 over the canonical JSON with this field empty, in hex."""

    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        unsigned = msgspec.structs.replace(self, signature="")
        return msgspec.json.encode(unsigned, order="deterministic")


class RootLog:
    """Appends signed roots to a file and syncs each one."""

    def __init__(self, path: Path, key: Ed25519PrivateKey) -> None:
        """`path` should lie on other storage than the database."""
        self._path = path
        self._key = key
        self._heads: Mapping[int, tuple[int, bytes]] | None = None
        self.current_at: datetime | None = None
        """Market time at which the newest root was last known to say what the journal says."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._previous = self._repair()
        self._torn = False

    def write(self, at: datetime, heads: Mapping[int, tuple[int, bytes]]) -> bool:
        """Append a root unless nothing moved since the last; True when one was written.

        Raises OSError when the file cannot be written; the next call tries again.
        """
        if heads == self._heads:
            self.current_at = at
            return False
        if self._torn:
            self._previous, self._torn = self._repair(), False
        named = {str(shard): (seq, digest.hex()) for shard, (seq, digest) in heads.items()}
        root = Root(at=at, heads=named, previous=self._previous)
        signature = self._key.sign(root.signed_bytes()).hex()
        line = msgspec.json.encode(
            msgspec.structs.replace(root, signature=signature), order="deterministic"
        )
        self._append(line)
        self._previous = hashlib.sha256(line).hexdigest()
        self._heads, self.current_at = dict(heads), at
        return True

    def _append(self, line: bytes) -> None:
        self._torn = True  # until it is whole: the disk may be full in the middle of a line
        with self._path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._torn = False

    def _repair(self) -> str:
        """Cut off a line torn by a crash; return the hash of the last whole one."""
        if not self._path.exists():
            return ""
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) != len(data):
            os.truncate(self._path, len(whole))
        lines = whole.splitlines()
        return hashlib.sha256(lines[-1]).hexdigest() if lines else ""


def read_roots(path: Path, key: Ed25519PublicKey) -> Iterator[Root]:
    """Yield the roots of a file.

    Raises:
        StoreError: a line is not a root, is not signed by `key`, or one before it is missing.
    """
    previous = ""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            root = msgspec.json.decode(line, type=Root)
            key.verify(bytes.fromhex(root.signature), root.signed_bytes())
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreError(f"{path.name} line {number} is not a root: {error}") from error
        except InvalidSignature as error:
            raise StoreError(f"{path.name} line {number}: the signature is wrong") from error
        if root.previous != previous:
            raise StoreError(f"{path.name} line {number}: a root before it is missing")
        previous = hashlib.sha256(line).hexdigest()
        yield root


def load_or_create_key(path: Path) -> Ed25519PrivateKey:
    """The signing key in a PEM file, readable by its owner only; made when missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        path.with_suffix(".pub.pem").write_bytes(public)
        return key
    loaded = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(loaded, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds no Ed25519 key: give one, or remove it to make a new one")
    return loaded


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file."""
    loaded = load_pem_public_key(path.read_bytes())
    if not isinstance(loaded, Ed25519PublicKey):
        raise ConfigError(f"{path} holds no Ed25519 public key")
    return loaded
