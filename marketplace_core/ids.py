"""Prefixed, time-sortable identifiers, made at the edge from an injected source.

The 26 characters after the prefix are a ULID (48 bits of milliseconds, 80 bits
of randomness, Crockford base 32), so ids of one kind sort by creation.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from collections.abc import Callable

OrderId = NewType("OrderId", str)
AssetId = NewType("AssetId", str)
DeviceId = NewType("DeviceId", str)
ContractId = NewType("ContractId", str)
NeedId = NewType("NeedId", str)
BidId = NewType("BidId", str)
OrganisationId = NewType("OrganisationId", str)
SetpointId = NewType("SetpointId", str)

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_PAIR = 1023
_SHIFTS = range(120, -1, -10)
"""Two characters at a time: thousands of ids are made within one plan."""
_RANDOM_BITS = 80
DEVICE_SHARDS = 256
"""Device shards are two hex digits, fixed for ever: they are part of every topic."""


class IdSource:
    """Makes ids from an injected clock and an injected source of randomness."""

    def __init__(self, now_ms: Callable[[], int], random_bits: Callable[[int], int]) -> None:
        """`now_ms` gives Unix milliseconds; `random_bits(n)` gives an n-bit integer."""
        self._now_ms = now_ms
        self._random_bits = random_bits

    def new(self, prefix: str) -> str:
        """Return a new id such as `ord_01J...`; `prefix` is given without underscore."""
        value = (self._now_ms() << _RANDOM_BITS) | self._random_bits(_RANDOM_BITS)
        pairs = [_PAIRS[(value >> shift) & _PAIR] for shift in _SHIFTS]
        return f"{prefix}_{''.join(pairs)}"


def shard_of(key: str, shards: int = DEVICE_SHARDS) -> int:
    """Shard number of a device id or journal stream: first bytes of SHA-256, modulo `shards`."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:4], "big") % shards
