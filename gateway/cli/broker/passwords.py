"""Passwords of logins, as Mosquitto's password file keeps them.

A line is `name:$7$iterations$salt$hash`, PBKDF2 with HMAC-SHA-512, salt and hash in base64.
Mosquitto 2.0 takes a salt of exactly 12 bytes and a hash of 64, and makes 101 iterations by
itself (its src/password_mosq.h, apps/mosquitto_passwd/mosquitto_passwd.c and the decoding of
the file in src/security_default.c).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

_ITERATIONS: Final = 101
"""Mosquitto's own. More would guard words that people choose; 192 random bits need none, and
the broker, which has one thread, hashes once for every device that comes back after an outage."""
_SALT_BYTES: Final = 12
_HASH_BYTES: Final = 64
_PASSWORD_BYTES: Final = 24
_PARTS: Final = 5
_KIND: Final = "7"


def new_password() -> str:
    """A random password: letters, digits, `-` and `_`."""
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def hashed(password: str) -> str:
    """A password as it stands after the name's colon, with a fresh salt."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _digest(password, salt, _ITERATIONS)
    return f"${_KIND}${_ITERATIONS}${_text(salt)}${_text(digest)}"


def matches(password: str, entry: str) -> bool:
    """Whether an entry is this password's; an entry that cannot be read is nobody's."""
    parts = entry.split("$")
    if len(parts) != _PARTS or parts[:2] != ["", _KIND]:
        return False
    try:
        iterations, salt = int(parts[2]), base64.b64decode(parts[3], validate=True)
        digest = base64.b64decode(parts[4], validate=True)
    except (ValueError, binascii.Error):
        return False
    if iterations < 1 or len(salt) != _SALT_BYTES:
        return False
    return hmac.compare_digest(_digest(password, salt, iterations), digest)


def entries_of(text: str) -> dict[str, str]:
    """Of each name in a password file its entry."""
    lines = (line.partition(":") for line in text.splitlines() if line and line[0] != "#")
    return {name: entry for name, _, entry in lines if entry}


def password_text(entries: dict[str, str]) -> str:
    """The password file."""
    return "".join(f"{name}:{entry}\n" for name, entry in entries.items())


def _digest(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations, _HASH_BYTES)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
