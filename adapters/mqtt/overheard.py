"""What the broker says that the MQTT library keeps to itself, and why there is no session."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final

import gmqtt
from gmqtt.mqtt.handler import MQTTConnectError

from adapters.mqtt.reasons import UNKNOWN, words

_CODE_AT: Final = {"CONNACK": 1, "PUBACK": 2, "DISCONNECT": 0}
"""Where the code stands after the fixed header; left out, it is 0."""

Heard = Callable[[str, int], None]
"""Packet and code."""


def listen(client: gmqtt.Client, heard: Heard) -> None:
    """Tell `heard` of every CONNACK, PUBACK and DISCONNECT of a client.

    gmqtt 0.8 hands out no reason of a PUBACK and none of a refused CONNACK: the packets are
    read on their way to its handler, which finds its methods by name.
    """
    handler = client._package_handler  # noqa: SLF001 - see above
    for packet in _CODE_AT:
        name = f"_handle_{packet.lower()}_packet"
        setattr(handler, name, _overhear(packet, getattr(handler, name), heard))


def _overhear(
    packet: str, handle: Callable[[Any, bytes], None], heard: Heard
) -> Callable[[Any, bytes], None]:
    place = _CODE_AT[packet]

    def overheard(command: object, data: bytes) -> None:
        if len(data) > place:
            heard(packet, data[place])
        elif packet == "PUBACK":
            heard(packet, 0)  # an empty DISCONNECT is what the library makes of a lost link
        handle(command, data)

    return overheard


def fault_of(error: Exception) -> str:
    """Why there is no session, in words that name no address and no secret."""
    if isinstance(error, MQTTConnectError):
        code = error._code  # noqa: SLF001 - it has no other name
        return f"the broker refused the connection: {words('CONNACK', code)}"
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
