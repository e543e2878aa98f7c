"""The signature of a message: who sent it, when, and that nobody changed it. No I/O.

`Flexway-Signature: t=<Unix seconds>,v1=<hex>[,v1=<hex>]`, each `v1` the HMAC-SHA256 of
`<t>.<body>` under one secret (the UTF-8 bytes of its whole text). While a secret is rotated
there is one for the new and one for the old. Where a request has no body (a GET), its path
and query stand in the body's place.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

SIGNATURE: Final = "Flexway-Signature"
DELIVERY: Final = "Flexway-Delivery"
"""The same for every attempt to deliver one message to one endpoint."""
ATTEMPT: Final = "Flexway-Attempt"
"""1, 2, 3, ..."""
TOLERANCE_S: Final = 300.0
"""Most seconds between the signature and the receiver's clock, either way."""
_LONGEST_HEADER: Final = 1_024
_TIME: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_MAC: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Verdict(enum.Enum):
    """What a receiver finds."""

    GENUINE = "genuine"
    MALFORMED = "the signature is missing or not of the form t=...,v1=..."
    STALE = "the signature is too old, or from the future: check both clocks"
    FOREIGN = "the signature is not of a secret that is valid here"


def sign(body: bytes, secrets: Sequence[str], timestamp: int) -> str:
    """The header's value; `timestamp` in Unix seconds."""
    macs = (f"v1={_mac(body, secret, str(timestamp))}" for secret in secrets)
    return ",".join([f"t={timestamp}", *macs])


def verify(
    header: str,
    body: bytes,
    secrets: Sequence[str],
    *,
    now: float,
    tolerance_s: float = TOLERANCE_S,
) -> Verdict:
    """Check a header against a body; `now` in Unix seconds.

    Within the tolerance a message can be replayed: a receiver also has to know the ids that
    it has seen. Elements of other schemes than `v1` are left aside.
    """
    pairs = [part.partition("=")[::2] for part in header[:_LONGEST_HEADER].split(",")]
    times = [value for key, value in pairs if key == "t"]
    macs = [value for key, value in pairs if key == "v1" and _MAC.fullmatch(value)]
    if len(times) != 1 or not _TIME.fullmatch(times[0]) or not macs:
        return Verdict.MALFORMED
    expected = [_mac(body, secret, times[0]) for secret in secrets]
    # every pair is compared, in constant time each: nothing tells how near a guess was
    matches = [hmac.compare_digest(mac, ours) for mac in macs for ours in expected]
    if not any(matches):
        return Verdict.FOREIGN
    if abs(now - int(times[0])) > tolerance_s:
        return Verdict.STALE
    return Verdict.GENUINE


def _mac(body: bytes, secret: str, timestamp: str) -> str:
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
