"""A session without a socket: what is in flight, and a connection that is about to end."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from firmware_sim.fleet import packets
from firmware_sim.fleet.mqtt_session import MOST_IN_FLIGHT, Session

WELCOME, KNOWN = bytes.fromhex("20 02 00 00"), bytes.fromhex("20 02 01 00")


class Transport:
    """Keeps what is written; once it is closing, a write is a mistake, as uvloop has it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


class Device:
    """Firmware that only says hello."""

    def opened(self, _session: Session) -> bytes:
        return b"hello"

    def welcomed(self, _session: Session, *, known: bool) -> None:
        self.known = known

    def heard(self, _session: Session) -> None: ...

    def lost(self, _session: Session) -> None: ...


def opened(session: Session, welcome: bytes) -> Transport:
    transport = Transport()
    session.connection_made(cast("asyncio.Transport", transport))
    session.data_received(welcome)
    return transport


def made() -> Session:
    return Session(0, cast("Any", Device()), five=False)


def test_nothing_is_written_to_a_connection_that_is_closing() -> None:
    session = made()
    transport = opened(session, WELCOME)
    transport.closing = True
    session.publish(b"t", b"late")
    session.flush()
    session.ping()
    assert transport.written == [b"hello"]


def test_what_was_in_flight_comes_again_when_the_session_is_known() -> None:
    session = made()
    first = opened(session, WELCOME)
    session.publish(b"t", b"one")
    session.flush()
    session.connection_lost(None)
    second = opened(session, KNOWN)
    assert second.written == [b"hello", packets.again(first.written[-1])]
    session.connection_lost(None)
    third = opened(session, WELCOME)
    assert third.written == [b"hello"], "a new session knows nothing of it"


def test_more_than_may_be_in_flight_waits_for_its_turn() -> None:
    session = made()
    transport = opened(session, WELCOME)
    for number in range(MOST_IN_FLIGHT + 2):
        session.publish(b"t", b"%d" % number)
    session.flush()
    assert transport.written[-1].count(b"\x00\x01t") == MOST_IN_FLIGHT
    session.data_received(packets.puback(1))
    assert transport.written[-1].endswith(b"%d" % MOST_IN_FLIGHT)
