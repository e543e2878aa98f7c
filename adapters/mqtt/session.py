"""One MQTT session on one connection: bytes in, messages out, acknowledgements when told.

The broker hears of a message (PUBACK) only when `acknowledge` is called with its number,
which is after the commit. What goes out is gathered for one turn of the event loop and
written together.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec
import structlog

from adapters.mqtt import packets
from adapters.mqtt.aliases import Sent
from adapters.mqtt.reasons import fault_of, refused, words


class MqttBroker(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is and how the session behaves; nothing is left to defaults."""

    host: str
    port: int
    client_id: str
    username: str = ""
    password: str = ""
    tls: Any = None
    """An `ssl.SSLContext`; None = plain text, for a lab on loopback."""
    version: int = 5
    """MQTT protocol level: 5; 4 for a broker that speaks 3.1.1 only; 0 tries 5, then 3.1.1."""
    keepalive_s: int = 30
    session_expiry_s: int = 86_400
    """The broker keeps our session and its queue for so long."""
    receive_maximum: int = 1_000
    """Unacknowledged messages the broker may have in flight to us."""
    maximum_packet: int = 1_048_576
    """Bytes of one message that the broker may send us; it drops longer ones (MQTT 5)."""
    topic_aliases: int = 4_096
    """Topics that the broker may give a number (MQTT 5): it saves their bytes."""
    most_waiting: int = 50_000
    """Messages that wait for the broker's window; more is refused."""


Acknowledge = Callable[[Sequence[int]], None]
"""Tells the broker that messages are dealt with; heard by nobody once the connection is lost."""
OnMessages = Callable[[Sequence[packets.Publish], Acknowledge], None]
"""Messages that came together, in order."""
_ENDED: Final = (
    "the broker ended the connection; over TLS it may want a client certificate, or another"
)
_MOST_IN_FLIGHT: Final = 65_535
"""Packet identifiers that there are."""
_log = structlog.get_logger(__name__)
Noted = Callable[[str, str], None]
"""A packet of the broker and its reason in words."""


def unnoted(_packet: str, _reason: str) -> None:
    """Nobody counts."""


class LinkError(Exception):
    """The broker does not give the session that was asked for."""


class _Outbound(NamedTuple):
    topic: bytes
    payload: bytes
    properties: bytes
    retain: bool


class Session(asyncio.Protocol):
    """The client's side of one connection; MQTT 5 or 3.1.1."""

    def __init__(
        self, broker: MqttBroker, version: int, topics: Sequence[str], on_messages: OnMessages, *,
        will: packets.Will | None = None, clean: bool = False, noted: Noted = unnoted,
    ) -> None:  # fmt: skip
        """Subscribes to `topics` at QoS 1 as soon as the broker has taken it in.

        `clean`: the broker keeps nothing for us between two sessions. `noted` hears of every
        reason code that the broker gives.
        """
        loop = asyncio.get_running_loop()
        self.granted: asyncio.Future[None] = loop.create_future()
        """Done when every subscription stands; LinkError when the broker refuses."""
        self.lost: asyncio.Future[str] = loop.create_future()
        """Done when the connection is over; why, where the broker said it."""
        self.heard_at = loop.time()
        """Loop time at which the broker last sent anything."""
        self.keepalive_s = float(broker.keepalive_s)
        self._broker = broker
        self._version = version
        self._topics = topics
        self._on_messages = on_messages
        self._will = will
        self._clean = clean
        self._noted = noted
        self._refusals: set[tuple[str, int]] = set()
        self._reader = packets.Reader(version, broker.maximum_packet, broker.topic_aliases)
        self._aliases = Sent(0)
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._paused = False
        self._window = _MOST_IN_FLIGHT
        self._in_flight: set[int] = set()
        self._next = 0
        self._waiting: deque[_Outbound] = deque()
        self._why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its type
        broker = self._broker
        self._write(
            packets.connect(
                broker.client_id, version=self._version, keepalive_s=broker.keepalive_s,
                username=broker.username, password=broker.password, will=self._will,
                clean=self._clean,
                properties={
                    packets.SESSION_EXPIRY: broker.session_expiry_s,
                    packets.RECEIVE_MAXIMUM: broker.receive_maximum,
                    packets.MAXIMUM_PACKET: broker.maximum_packet,
                    packets.TOPIC_ALIAS_MAXIMUM: broker.topic_aliases,
                },
            )
        )  # fmt: skip

    def data_received(self, data: bytes) -> None:
        """Take packets; messages are handed on together."""
        self.heard_at = self._loop.time()
        messages: list[packets.Publish] = []
        try:
            for packet in self._reader.feed(data):
                if type(packet) is packets.Publish:
                    messages.append(packet)
                else:
                    self._control(packet)
        except (packets.PacketError, LinkError) as error:
            self._fail(error)
        if messages:
            self._on_messages(messages, self.acknowledge)
        if self._waiting:
            self._send_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told."""
        self._transport = None
        why = self._why or (fault_of(exc) if isinstance(exc, ssl.SSLError) else _ENDED)
        if not self.granted.done():
            self.granted.set_exception(LinkError(why))
        if not self.lost.done():
            self.lost.set_result(why)

    def pause_writing(self) -> None:
        """The socket is full: commands wait here."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket takes more."""
        self._paused = False
        self._send_waiting()

    def acknowledge(self, mids: Sequence[int]) -> None:
        """PUBACK messages, in the order in which they came (section 4.6)."""
        if self._transport is not None:
            self._write(packets.puback([mid for mid in mids if mid]))

    def publish(
        self, topic: bytes, payload: bytes, properties: bytes = b"\0", *, retain: bool = False
    ) -> bool:
        """Send a message at QoS 1 when the broker's window lets it; False when nothing will be.

        `properties` as `packets.message_properties` gives them.
        """
        if self._transport is None or len(self._waiting) >= self._broker.most_waiting:
            return False
        self._waiting.append(_Outbound(topic, payload, properties, retain))
        self._send_waiting()
        return True

    def tell(self, topic: bytes, payload: bytes, properties: bytes = b"\0") -> bool:
        """Send a message at QoS 0; False when it is not sent, the socket being full or gone."""
        if self._transport is None or self._paused:
            return False
        self._say(_Outbound(topic, payload, properties, retain=False), mid=0)
        return True

    def ping(self) -> None:
        """Keep the connection, or find out that it is lost."""
        self._write(packets.PING)

    def close(self) -> None:
        """Say goodbye; a Will is said by ourselves, because the broker then keeps it back."""
        if self._transport is not None:
            if self._will is not None:
                self.publish(*self._will, retain=True)
            self._write(packets.BYE)
            self._flush()
            self._transport.close()

    def abort(self, why: str) -> None:
        """Give the connection up without a word."""
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()

    def _control(self, packet: packets.Packet) -> None:
        match packet:
            case packets.Acknowledged(mid=mid, code=code):
                self._in_flight.discard(mid)
                self._note("PUBACK", code)
            case packets.Connected():
                self._connected(packet)
            case packets.Granted(codes=codes):
                given = ", ".join(self._note("SUBACK", code) for code in codes)
                if any(code != 1 for code in codes):
                    topics = list(self._topics)
                    raise LinkError(f"the broker does not grant QoS 1 for {topics}: {given}")
                if not self.granted.done():
                    self.granted.set_result(None)
            case packets.Disconnected(code=code, reason=text):
                self._why = f"the broker ended the session: {self._note('DISCONNECT', code, text)}"
            case packets.Pong() | packets.Publish():
                pass  # that it came is all there is to a pong; messages go another way

    def _connected(self, packet: packets.Connected) -> None:
        text = packet.properties.get(packets.REASON, b"")
        reason = text.decode(errors="replace") if isinstance(text, bytes) else ""
        said = self._note("CONNACK", packet.code, reason)
        if packet.code:
            raise LinkError(f"the broker refused the connection: {said}")
        window = packet.properties.get(packets.RECEIVE_MAXIMUM, _MOST_IN_FLIGHT)
        self._window = window if isinstance(window, int) else _MOST_IN_FLIGHT
        aliases = packet.properties.get(packets.TOPIC_ALIAS_MAXIMUM, 0)
        self._aliases = Sent(aliases if isinstance(aliases, int) else 0)
        told = packet.properties.get(packets.SERVER_KEEP_ALIVE)
        self.keepalive_s = float(told) if isinstance(told, int) else self.keepalive_s
        self._write(packets.subscribe(self._new_id(), self._topics, version=self._version))

    def _send_waiting(self) -> None:
        """Send what waits until the broker's window or the socket is full."""
        while self._waiting and not self._paused and len(self._in_flight) < self._window:
            message = self._waiting.popleft()
            mid = self._new_id()
            self._in_flight.add(mid)
            self._say(message, mid)

    def _say(self, message: _Outbound, mid: int) -> None:
        topic, alias = self._aliases.address(message.topic)
        properties = message.properties
        if alias:
            properties = packets.with_alias(properties, alias)
        self._write(
            packets.publish(
                topic, message.payload, mid=mid, version=self._version, retain=message.retain,
                properties=properties,
            )
        )  # fmt: skip

    def _note(self, packet: str, code: int, text: str = "") -> str:
        """Count a code; what says no is logged once for each connection. The code in words."""
        said = words(packet, code)
        self._noted(packet, said)
        no = refused(code) or packet == "DISCONNECT"
        if no and (packet, code) not in self._refusals:
            self._refusals.add((packet, code))
            _log.warning("mqtt_refused", packet=packet, code=code, reason=said, text=text)
        return said

    def _new_id(self) -> int:
        while True:
            self._next = self._next % _MOST_IN_FLIGHT + 1
            if self._next not in self._in_flight:
                return self._next

    def _fail(self, error: Exception) -> None:
        if not self.granted.done():
            self.granted.set_exception(
                error if isinstance(error, LinkError) else LinkError(str(error))
            )
        self.abort(str(error))

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(b"".join(out))
