"""Secrets at rest: AES-256-GCM under a key in a file of its own.

A sealed secret is bound to the row that it stands in: copied to another it does not open.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from marketplace_core.errors import ConfigError, StoreError

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Sealer:
    """Seals and opens secrets under one key."""

    def __init__(self, key: bytes) -> None:
        """`key`: 32 bytes."""
        self._cipher = AESGCM(key)

    def seal(self, secret: str, *, bound_to: str) -> bytes:
        """Nonce and ciphertext; opens only with the same `bound_to`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), bound_to.encode())

    def open(self, sealed: bytes, *, bound_to: str) -> str:
        """The secret; StoreError when key, row or bytes are not the ones it was sealed with."""
        nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, ciphertext, bound_to.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise StoreError(
                f"the secret of {bound_to} does not open: is webhook.key the file it was made with?"
            ) from error


def load_or_create_sealing_key(path: Path) -> bytes:
    """The key in a file that only its owner may read; made when missing.

    Raises:
        ConfigError: others may read the file, or it holds no key.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        key = AESGCM.generate_key(_KEY_BYTES * 8)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        return key
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"webhook.key: {path} may be read by others: chmod 600 it")
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"webhook.key: {path} holds {len(key)} bytes, a key has {_KEY_BYTES}")
    return key
