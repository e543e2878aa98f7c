"""One device's session with the broker, over as many connections as it takes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol, cast

from firmware_sim.fleet import packets

MOST_IN_FLIGHT: Final = 16
"""Unacknowledged messages of one device."""
_LAST_ID: Final = 65_535


class Firmware(Protocol):
    """What a session tells its device."""

    def opened(self, session: Session) -> bytes:
        """The CONNECT for a connection that was just made."""

    def welcomed(self, session: Session, *, known: bool) -> None:
        """The broker took it in; `known`: and still has its session."""

    def refused(self, session: Session, code: int) -> None:
        """The broker said no; the connection is given up."""

    def heard(self, session: Session) -> None:
        """The broker said anything."""

    def received(self, session: Session, message: packets.Message) -> None:
        """A message came."""

    def lost(self, session: Session) -> None:
        """The connection is over."""


class Session(asyncio.Protocol):
    """What outlives a connection: messages in flight, messages that wait, the next number."""

    __slots__ = (
        "_firmware", "_in_flight", "_mid", "_out", "_rest", "_room", "_transport", "_waiting",
        "device", "failures", "five", "hold_s", "tries", "trying", "up",
    )  # fmt: skip

    def __init__(self, device: int, firmware: Firmware, *, five: bool) -> None:
        self.device = device
        self.five = five
        self.up = False
        """The broker has taken it in."""
        self.failures = 0
        """Tries in a row that failed."""
        self.tries = 0
        self.trying = False
        """A try waits or is being made."""
        self.hold_s = 0.0
        """It stays away at least so long when the connection is lost."""
        self._firmware = firmware
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._mid = 0
        self._room = MOST_IN_FLIGHT
        self._in_flight: dict[int, bytes] = {}
        self._waiting: deque[tuple[bytes, bytes, bool]] | None = None
        self._out: list[bytes] = []

    @property
    def connected(self) -> bool:
        """Whether there is a connection, taken in or not."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce the device."""
        self._transport = cast("asyncio.Transport", transport)
        self._rest = b""
        self._out.clear()
        self._transport.write(self._firmware.opened(self))

    def data_received(self, data: bytes) -> None:
        """Take packets; what they call for goes out in one write."""
        self._firmware.heard(self)
        try:
            found, self._rest = packets.frames(self._rest + data if self._rest else data)
            for frame in found:
                self._take(frame)
        except packets.FrameError:
            self.abort()
        self.flush()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Wait for the next connection."""
        self.up = False
        self._transport = None
        self._firmware.lost(self)

    def publish(self, topic: bytes, payload: bytes, *, retain: bool = False) -> None:
        """Send at QoS 1, at once or when the broker has room; `flush` writes it."""
        if len(self._in_flight) >= self._room or not self.up:
            if self._waiting is None:
                self._waiting = deque()
            self._waiting.append((topic, payload, retain))
            return
        mid = self._new_id()
        packet = packets.publish(topic, payload, mid, five=self.five, retain=retain)
        self._in_flight[mid] = packet
        self._out.append(packet)

    def subscribe(self, topics: tuple[bytes, ...]) -> None:
        """Ask for topics; `flush` writes it."""
        self._out.append(packets.subscribe(self._new_id(), topics, five=self.five))

    def ping(self) -> None:
        """Keep the connection."""
        self._out.append(packets.PING)
        self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        # A transport whose peer hung up is closing before `connection_lost` says so.
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def goodbye(self, topic: bytes, payload: bytes) -> None:
        """Say, retained, what the Will would say, and disconnect; without room for it, abort."""
        if self._transport is not None and self.up and len(self._in_flight) < self._room:
            self.publish(topic, payload, retain=True)
            self._out.append(packets.GOODBYE)
            self.flush()
            self._transport.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Lose the connection without a word: the Will speaks."""
        if self._transport is not None:
            self._transport.abort()

    def forget(self) -> None:
        """RAM is empty: nothing is in flight, nothing waits."""
        self._in_flight.clear()
        self._waiting = None

    def _take(self, frame: packets.Frame) -> None:
        match frame.kind:
            case packets.PUBLISH:
                message = packets.message(frame, five=self.five)
                if message.mid:
                    self._out.append(packets.puback(message.mid))
                self._firmware.received(self, message)
            case packets.PUBACK:
                self._in_flight.pop(packets.acknowledged(frame), None)
                self._send_waiting()
            case packets.CONNACK:
                self._welcome(packets.welcome(frame, five=self.five))
            case packets.DISCONNECT:
                self.abort()
            case _:
                pass  # a SUBACK or a pong: that it came is all there is to it

    def _welcome(self, welcome: packets.Welcome) -> None:
        if welcome.code:
            self._firmware.refused(self, welcome.code)
            self.abort()
            return
        self.up = True
        self.failures = 0
        self._room = min(MOST_IN_FLIGHT, welcome.receive_maximum)
        if welcome.session:  # section 4.4: with the same identifiers, in the same order
            self._out += map(packets.again, self._in_flight.values())
        else:
            self._in_flight.clear()
        self._firmware.welcomed(self, known=welcome.session)
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting and self.up and len(self._in_flight) < self._room:
            topic, payload, retain = self._waiting.popleft()
            self.publish(topic, payload, retain=retain)
        if not self._waiting:
            self._waiting = None

    def _new_id(self) -> int:
        while True:
            self._mid = self._mid % _LAST_ID + 1
            if self._mid not in self._in_flight:
                return self._mid
