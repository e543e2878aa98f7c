"""What a broker's answers mean: reason codes in words. No I/O.

MQTT 5, section 2.4 and the tables of 3.2.2.2, 3.4.2.1, 3.9.3 and 3.14.2.1; for 3.1.1 the
return codes of its sections 3.2.2.3 and 3.9.3.
"""

from __future__ import annotations

import ssl
from typing import Final

UNKNOWN: Final = "unknown"
_REFUSED: Final = 0x80
_COMMON: Final = {
    0x80: "unspecified error",
    0x83: "implementation specific error",
    0x87: "not authorized",
    0x97: "quota exceeded",
}
_SESSION: Final = {
    0x81: "malformed packet",
    0x82: "protocol error",
    0x89: "server busy",
    0x90: "topic name invalid",
    0x95: "packet too large",
    0x99: "payload format invalid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9F: "connection rate exceeded",
}
REASONS: Final[dict[str, dict[int, str]]] = {
    "CONNACK": {
        0x00: "success",
        0x01: "unacceptable protocol version",
        0x02: "client identifier not valid",
        0x03: "server unavailable",
        0x04: "bad user name or password",
        0x05: "not authorized",
        **_COMMON,
        **_SESSION,
        0x84: "unsupported protocol version",
        0x85: "client identifier not valid",
        0x86: "bad user name or password",
        0x88: "server unavailable",
        0x8A: "banned",
        0x8C: "bad authentication method",
    },
    "PUBACK": {
        0x00: "success",
        0x10: "no matching subscribers",
        **_COMMON,
        0x90: "topic name invalid",
        0x91: "packet identifier in use",
        0x99: "payload format invalid",
    },
    "SUBACK": {
        0x00: "granted QoS 0",
        0x01: "granted QoS 1",
        0x02: "granted QoS 2",
        **_COMMON,
        0x8F: "topic filter invalid",
        0x91: "packet identifier in use",
        0x9E: "shared subscriptions not supported",
        0xA1: "subscription identifiers not supported",
        0xA2: "wildcard subscriptions not supported",
    },
    "DISCONNECT": {
        0x00: "normal disconnection",
        **_COMMON,
        **_SESSION,
        0x8B: "server shutting down",
        0x8D: "keep alive timeout",
        0x8E: "session taken over",
        0x8F: "topic filter invalid",
        0x93: "receive maximum exceeded",
        0x94: "topic alias invalid",
        0x96: "message rate too high",
        0x98: "administrative action",
        0x9E: "shared subscriptions not supported",
        0xA0: "maximum connect time",
        0xA1: "subscription identifiers not supported",
        0xA2: "wildcard subscriptions not supported",
    },
}
"""Of each packet that answers us its codes; some say the same in both versions of MQTT."""


def words(packet: str, code: int) -> str:
    """A code in words, of a number that is bounded: `unknown` for all that no version has."""
    return REASONS[packet].get(code, UNKNOWN)


def refused(code: int) -> bool:
    """Whether a code of MQTT 5, or of a 3.1.1 SUBACK, says no."""
    return code >= _REFUSED


def fault_of(error: Exception) -> str:
    """Why there is no session, in words that name no address and no secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or UNKNOWN
        return f"no TLS with the broker: {reason.lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "the broker does not answer in time"
    if isinstance(error, OSError):
        return "the broker cannot be reached"
    return str(error) or type(error).__name__
