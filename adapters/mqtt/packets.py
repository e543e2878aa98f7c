"""MQTT 5 and 3.1.1 from the client's side: bytes to packets and back, no I/O.

Section numbers are those of the OASIS standard "MQTT Version 5.0". Only what a client at
QoS 0 and 1 needs: QoS 2 is never asked for, and a broker may not send it then.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from adapters.mqtt.aliases import AliasError, Received
from marketplace_core.errors import FlexwayError

V5: Final = 5
V311: Final = 4
"""Protocol levels (section 3.1.2.2)."""
_CONNACK: Final = 2
_PUBLISH: Final = 3
_PUBACK: Final = 4
_SUBACK: Final = 9
_PINGRESP: Final = 13
_DISCONNECT: Final = 14
_MOST_LENGTH_BYTES: Final = 4
_LONGEST_EXPIRY_S: Final = 2**32 - 1
PING: Final = b"\xc0\x00"
BYE: Final = b"\xe0\x00"
"""A normal disconnection of either version: the broker drops the Will."""

# Identifiers of properties by the form of their value (section 2.2.2.2).
_ONE_BYTE: Final = frozenset({0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A})
_TWO_BYTES: Final = frozenset({0x13, 0x21, 0x22, 0x23})
_FOUR_BYTES: Final = frozenset({0x02, 0x11, 0x18, 0x27})
_TEXT: Final = frozenset({0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F})
_VARIABLE: Final = 0x0B
_USER: Final = 0x26
MESSAGE_EXPIRY: Final = 0x02
CORRELATION: Final = 0x09
RESPONSE_TOPIC: Final = 0x08
SESSION_EXPIRY: Final = 0x11
SERVER_KEEP_ALIVE: Final = 0x13
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
MAXIMUM_PACKET: Final = 0x27
REASON: Final = 0x1F
Properties = dict[int, int | bytes]


class PacketError(FlexwayError):
    """Bytes that no broker may send: the connection is of no use any more."""


class Will(NamedTuple):
    """What the broker says, retained, when we are gone without a goodbye (section 3.1.2.5)."""

    topic: bytes
    payload: bytes


class Publish(NamedTuple):
    """A message from the broker (section 3.3)."""

    topic: bytes
    payload: bytes
    mid: int
    """Packet identifier to acknowledge; 0 at QoS 0."""
    again: bool
    """The broker may have delivered it before."""


class Acknowledged(NamedTuple):
    """PUBACK (section 3.4)."""

    mid: int
    code: int


class Connected(NamedTuple):
    """CONNACK (section 3.2)."""

    session_present: bool
    code: int
    properties: Properties


class Granted(NamedTuple):
    """SUBACK (section 3.9)."""

    codes: tuple[int, ...]


class Pong(NamedTuple):
    """PINGRESP (section 3.13)."""


class Disconnected(NamedTuple):
    """DISCONNECT from the broker (section 3.14)."""

    code: int
    reason: str


Packet = Publish | Acknowledged | Connected | Granted | Pong | Disconnected


class Reader:
    """Cuts a stream into packets; keeps what is not whole yet."""

    def __init__(self, version: int, maximum: int, aliases: int = 0) -> None:
        """`maximum`: bytes of one packet; a longer one is a PacketError.

        `aliases`: highest topic alias that the broker was told it may use.
        """
        self._aliases = Received(aliases)
        self._five = version == V5
        self._maximum = maximum
        self._rest = b""

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that are whole now, in order."""
        buffer = self._rest + data if self._rest else data
        packets: list[Packet] = []
        at, size = 0, len(buffer)
        try:
            while size - at >= 2:  # noqa: PLR2004 - the shortest packet
                length, body = buffer[at + 1], at + 2
                if length & 0x80:
                    length, body = _variable(buffer, at + 1)
                    if body < 0:
                        break
                end = body + length
                if end - at > self._maximum:
                    raise PacketError(f"a packet of {end - at} bytes; {self._maximum} are allowed")
                if end > size:
                    break
                packets.append(self._packet(buffer, at, body, end))
                at = end
        except AliasError as error:
            raise PacketError(str(error)) from error
        except (IndexError, struct.error, ValueError) as error:
            raise PacketError(f"a packet that ends too early: {error}") from error
        self._rest = buffer[at:]
        return packets

    def _packet(self, buffer: bytes, at: int, body: int, end: int) -> Packet:
        kind = buffer[at] >> 4
        if kind == _PUBLISH:
            return self._publish(buffer, at, body, end)
        whole = buffer[body:end]
        if kind == _PUBACK:
            return Acknowledged(whole[0] << 8 | whole[1], whole[2] if len(whole) > 2 else 0)  # noqa: PLR2004
        if kind == _CONNACK:
            found = self._properties(whole, 2) if self._five and len(whole) > 2 else {}  # noqa: PLR2004
            return Connected(bool(whole[0] & 1), whole[1], found)
        if kind == _SUBACK:
            start = _after_properties(whole, 2) if self._five else 2
            return Granted(tuple(whole[start:]))
        if kind == _PINGRESP:
            return Pong()
        if kind == _DISCONNECT:
            found = self._properties(whole, 1) if len(whole) > 1 else {}
            text = found.get(REASON, b"")
            reason = text.decode(errors="replace") if isinstance(text, bytes) else ""
            return Disconnected(whole[0] if whole else 0, reason)
        raise PacketError(f"a packet of type {kind}, which a broker does not send to us")

    def _publish(self, buffer: bytes, at: int, body: int, end: int) -> Publish:
        head = buffer[at]
        start = body + 2
        stop = start + (buffer[body] << 8 | buffer[body + 1])
        payload, mid = stop, 0
        if head & 0x04:
            raise PacketError("a message at QoS 2, which was never asked for")
        if head & 0x02:
            mid = buffer[stop] << 8 | buffer[stop + 1]
            payload += 2
        topic = buffer[start:stop]
        if self._five:
            at, length = payload, buffer[payload]
            payload = _after_properties(buffer, at) if length & 0x80 else at + 1 + length
            if length and payload <= end:  # of properties only an alias concerns us
                alias = self._properties(buffer[at:payload], 0).get(TOPIC_ALIAS)
                if isinstance(alias, int):
                    topic = self._aliases.topic(topic, alias)
        if payload > end:
            raise PacketError("a message that ends before its topic")
        if not topic:
            raise PacketError("a message without a topic")
        return Publish(topic, buffer[payload:end], mid, bool(head & 0x08))

    @staticmethod
    def _properties(whole: bytes, at: int) -> Properties:
        length, at = _variable(whole, at)
        end = at + length
        found: Properties = {}
        while at < end:
            name = whole[at]
            at = _property(whole, name, at + 1, found)
        return found


def connect(
    client_id: str, *, version: int, keepalive_s: int, username: str = "", password: str = "",
    clean: bool = False, will: Will | None = None, properties: Mapping[int, int] | None = None,
) -> bytes:  # fmt: skip
    """CONNECT (section 3.1); a Will is retained, at QoS 1. No `properties` before MQTT 5."""
    flags = 0x02 if clean else 0
    flags |= 0x2C if will else 0
    flags |= 0x80 if username else 0
    flags |= 0x40 if password else 0
    body = [_text(b"MQTT"), struct.pack(">BBH", version, flags, keepalive_s)]
    if version == V5:
        body.append(_encoded(properties or {}))
    body.append(_text(client_id.encode()))
    if will:
        body.append(b"\0" if version == V5 else b"")
        body.extend((_text(will.topic), _text(will.payload)))
    body.extend(_text(each.encode()) for each in (username, password) if each)
    return _framed(0x10, b"".join(body))


def subscribe(mid: int, topics: Sequence[str], *, version: int) -> bytes:
    """SUBSCRIBE at QoS 1 (section 3.8)."""
    properties = b"\0" if version == V5 else b""
    filters = b"".join(_text(topic.encode()) + b"\x01" for topic in topics)
    return _framed(0x82, struct.pack(">H", mid) + properties + filters)


def message_properties(
    *, expiry_s: float | None = None, correlation: bytes = b"", answer_to: bytes = b""
) -> bytes:
    """Properties of a message as they stand on the wire (section 3.3.2.3).

    Message expiry in whole seconds, at least one; correlation data; response topic.
    """
    body = b""
    if expiry_s is not None:
        body = b"\x02" + min(_LONGEST_EXPIRY_S, max(1, round(expiry_s))).to_bytes(4, "big")
    if correlation:
        body += b"\x09" + len(correlation).to_bytes(2, "big") + correlation
    if answer_to:
        body += b"\x08" + len(answer_to).to_bytes(2, "big") + answer_to
    return _varint(len(body)) + body


def with_alias(properties: bytes, alias: int) -> bytes:
    """Properties of a message with a topic alias beside them (section 3.3.2.3.4)."""
    _, at = _variable(properties, 0)
    body = properties[at:] + b"\x23" + alias.to_bytes(2, "big")
    return _varint(len(body)) + body


def publish(
    topic: bytes, payload: bytes, *, mid: int, version: int, retain: bool = False,
    properties: bytes = b"\0",
) -> bytes:  # fmt: skip
    """PUBLISH (section 3.3); at QoS 0 when `mid` is 0.

    `properties` as `message_properties` gives them; 3.1.1 has none.
    """
    head = bytes(((0x32 if mid else 0x30) | retain,))
    number = mid.to_bytes(2, "big") if mid else b""
    extra = properties if version == V5 else b""
    length = 2 + len(topic) + len(number) + len(extra) + len(payload)
    name = len(topic).to_bytes(2, "big") + topic
    return b"".join((head, _varint(length), name, number, extra, payload))


def puback(mids: Sequence[int]) -> bytes:
    """PUBACK of each, with success, in order (section 3.4)."""
    return b"".join([b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids])


def _framed(head: int, body: bytes) -> bytes:
    return bytes((head,)) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    """A variable byte integer (section 1.5.5); one and two bytes are what messages need."""
    if value < 0x80:  # noqa: PLR2004 - seven bits fit a byte
        return bytes((value,))
    if value < 0x4000:  # noqa: PLR2004 - fourteen bits fit two
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | 0x80 if value else low)
        if not value:
            return bytes(out)


def _variable(buffer: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer and where it ends; -1 as the end when more bytes are needed."""
    value = 0
    for index in range(_MOST_LENGTH_BYTES):
        if at + index >= len(buffer):
            return 0, -1
        byte = buffer[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, at + index + 1
    raise PacketError("a length of more than four bytes")


def _after_properties(buffer: bytes, at: int) -> int:
    length, at = _variable(buffer, at)
    if at < 0:
        raise PacketError("properties that end too early")
    return at + length


def _property(whole: bytes, name: int, at: int, found: Properties) -> int:
    """Take one property; where the next one begins."""
    if name in _ONE_BYTE:
        found[name] = whole[at]
        return at + 1
    if name in _TWO_BYTES:
        found[name] = int.from_bytes(whole[at : at + 2], "big")
        return at + 2
    if name in _FOUR_BYTES:
        found[name] = int.from_bytes(whole[at : at + 4], "big")
        return at + 4
    if name in _TEXT:
        size = int.from_bytes(whole[at : at + 2], "big")
        found[name] = whole[at + 2 : at + 2 + size]
        return at + 2 + size
    if name == _VARIABLE:
        found[name], end = _variable(whole, at)
        return end if end >= 0 else len(whole)
    if name == _USER:  # a pair of texts, any number of times
        for _ in range(2):
            at += 2 + int.from_bytes(whole[at : at + 2], "big")
        return at
    raise PacketError(f"a property of number {name}, which MQTT does not know")


def _encoded(properties: Mapping[int, int | bytes]) -> bytes:
    body = b""
    for name, value in properties.items():
        if isinstance(value, bytes):
            body += bytes((name,)) + _text(value)
        elif name in _TWO_BYTES:
            body += struct.pack(">BH", name, value)
        else:
            body += struct.pack(">BI", name, value)
    return _varint(len(body)) + body


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
