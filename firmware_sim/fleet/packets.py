"""MQTT 5 and 3.1.1 as a small device speaks it: bytes to packets and back, no I/O.

A second implementation on purpose, apart from the gateway's: what the one gets wrong the
other does not understand. QoS 0 and 1. Sections are those of OASIS "MQTT Version 5.0".
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from marketplace_core.errors import FlexwayError

CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
SUBACK: Final = 0x90
PINGRESP: Final = 0xD0
DISCONNECT: Final = 0xE0
_TO_DEVICES: Final = frozenset({CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP, DISCONNECT})
PING: Final = b"\xc0\x00"
GOODBYE: Final = b"\xe0\x00"
"""A normal disconnection: the broker does not speak the Will (section 3.14)."""
LARGEST: Final = 65_536
"""Bytes of one packet that a small device takes."""
_SHORT: Final = 128
_LENGTH_BYTES: Final = 4
_CLEAN, _WILL, _WILL_QOS1, _WILL_RETAIN = 0x02, 0x04, 0x08, 0x20
_PASSWORD, _USERNAME = 0x40, 0x80
_SESSION_EXPIRY: Final = 0x11
_TWO_BYTES: Final = 2
"""Flags and code of a CONNACK; the identifier of an acknowledgement."""
_USER_PROPERTY: Final = 0x26
_RECEIVE_MAXIMUM: Final = 0x21
_MAXIMUM_PACKET: Final = 0x27
_CONNACK_SIZES: Final = {
    0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip
"""Bytes of a CONNACK's properties that have a fixed size (section 3.2.2.3)."""


class FrameError(FlexwayError):
    """Bytes that no broker sends to a device."""


class Will(NamedTuple):
    """What the broker says, retained and at QoS 1, when the device is gone (section 3.1.2.5)."""

    topic: bytes
    payload: bytes


class Frame(NamedTuple):
    """One packet from the broker: type with flags, and what stands behind the length."""

    first: int
    body: bytes

    @property
    def kind(self) -> int:
        """The type alone, as the constants above."""
        return self.first & 0xF0


class Message(NamedTuple):
    """A PUBLISH from the broker."""

    topic: bytes
    payload: bytes
    mid: int
    """0 at QoS 0."""


class Welcome(NamedTuple):
    """A CONNACK."""

    session: bool
    """The broker still has the device's session."""
    code: int
    """0 = welcome."""
    receive_maximum: int
    """Messages that may be unacknowledged at a time."""


def frames(data: bytes) -> tuple[list[Frame], bytes]:
    """Whole packets at the beginning of `data`, and what is left of it. Raises: FrameError."""
    found: list[Frame] = []
    at = 0
    while True:
        length, start = _length(data, at + 1)
        if start < 0 or start + length > len(data):
            break
        first = data[at]
        if first & 0xF0 not in _TO_DEVICES:
            raise FrameError(f"a packet of type {first >> 4} is not for devices")
        found.append(Frame(first, data[start : start + length]))
        at = start + length
    return found, data[at:]


def message(frame: Frame, *, five: bool) -> Message:
    """Read a PUBLISH (section 3.3). Raises: FrameError."""
    body, quality = frame.body, frame.first >> 1 & 3
    if quality > 1:
        raise FrameError("a message at QoS 2 was never asked for")
    try:
        end = 2 + int.from_bytes(body[:2], "big")
        topic, mid = body[2:end], 0
        if quality:
            mid = int.from_bytes(body[end : end + 2], "big")
            end += 2
        if five:
            size, end = _length(body, end)
            if end < 0:
                raise FrameError("a message that ends in its properties")
            end += size
    except IndexError as error:
        raise FrameError("a message that ends too early") from error
    if end > len(body) or (quality and not mid):
        raise FrameError("a message that ends too early")
    return Message(topic, body[end:], mid)


def welcome(frame: Frame, *, five: bool) -> Welcome:
    """Read a CONNACK (section 3.2). Raises: FrameError."""
    body = frame.body
    if len(body) < _TWO_BYTES:
        raise FrameError("a CONNACK that ends too early")
    most = _receive_maximum(body) if five else 65_535
    return Welcome(bool(body[0] & 1), body[1], most)


def acknowledged(frame: Frame) -> int:
    """Packet identifier of a PUBACK or SUBACK. Raises: FrameError."""
    if len(frame.body) < _TWO_BYTES:
        raise FrameError("an acknowledgement that ends too early")
    return int.from_bytes(frame.body[:2], "big")


def connect(
    client_id: str, *, five: bool, keepalive_s: int, session_s: int, in_flight: int,
    will: Will, username: str = "", password: str = "",
) -> bytes:  # fmt: skip
    """CONNECT with a Will and a session that lasts (section 3.1).

    `session_s`: how long the broker keeps the session; on 3.1.1 anything above 0 asks for a
    session of the broker's own length. `in_flight`: Receive Maximum of the device.
    """
    flags = _WILL | _WILL_QOS1 | _WILL_RETAIN | (0 if session_s else _CLEAN)
    flags |= (_USERNAME if username else 0) | (_PASSWORD if password else 0)
    head = b"\x00\x04MQTT" + struct.pack(">BBH", 5 if five else 4, flags, keepalive_s)
    if five:
        own = struct.pack(
            ">BIBHBI", _SESSION_EXPIRY, session_s, _RECEIVE_MAXIMUM, in_flight,
            _MAXIMUM_PACKET, LARGEST,
        )  # fmt: skip
        head += bytes((len(own),)) + own
    no_properties = b"\x00" if five else b""
    parts = [head, _string(client_id.encode()), no_properties,
             _string(will.topic), _string(will.payload)]  # fmt: skip
    parts += [_string(each.encode()) for each in (username, password) if each]
    return _packet(0x10, b"".join(parts))


def subscribe(mid: int, topics: tuple[bytes, ...], *, five: bool) -> bytes:
    """SUBSCRIBE at QoS 1 (section 3.8)."""
    asked = b"".join(_string(topic) + b"\x01" for topic in topics)
    return _packet(0x82, mid.to_bytes(2, "big") + (b"\x00" if five else b"") + asked)


def publish(topic: bytes, payload: bytes, mid: int, *, five: bool, retain: bool = False) -> bytes:
    """PUBLISH at QoS 1 (section 3.3)."""
    body = _string(topic) + mid.to_bytes(2, "big") + (b"\x00" if five else b"") + payload
    return _packet(0x33 if retain else 0x32, body)


def again(packet: bytes) -> bytes:
    """The same PUBLISH, marked as one that may have come before (section 3.3.1.1)."""
    return bytes((packet[0] | 0x08,)) + packet[1:]


def puback(mid: int) -> bytes:
    """PUBACK with success (section 3.4)."""
    return b"\x40\x02" + mid.to_bytes(2, "big")


def _packet(first: int, body: bytes) -> bytes:
    length = len(body)
    if length < _SHORT:
        return bytes((first, length)) + body
    digits = bytearray()
    while length:
        length, low = divmod(length, _SHORT)
        digits.append(low | (_SHORT if length else 0))
    return bytes((first,)) + bytes(digits) + body


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer (section 1.5.5) and where it ends; -1 when it is not whole."""
    value = 0
    for place in range(_LENGTH_BYTES):
        if at + place >= len(data):
            return 0, -1
        byte = data[at + place]
        value += (byte % _SHORT) * _SHORT**place
        if byte < _SHORT:
            if value > LARGEST:
                raise FrameError(f"{value} bytes in one packet; {LARGEST} are taken")
            return value, at + place + 1
    raise FrameError("a length of more than four bytes")


def _receive_maximum(body: bytes) -> int:
    """Of a CONNACK of MQTT 5; 65,535 where it says nothing."""
    size, at = _length(body, 2)
    end = at + size if at >= 0 else 0
    while 0 < at < end <= len(body):
        name, at = body[at], at + 1
        if name == _RECEIVE_MAXIMUM:
            return int.from_bytes(body[at : at + 2], "big")
        if name in _CONNACK_SIZES:
            at += _CONNACK_SIZES[name]
        else:  # texts, and pairs of them
            for _ in range(2 if name == _USER_PROPERTY else 1):
                at += 2 + int.from_bytes(body[at : at + 2], "big")
    return 65_535


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
