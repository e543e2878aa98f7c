"""The client's side of one session, without a network: windows, order, goodbyes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from adapters.mqtt import packets
from adapters.mqtt.session import Acknowledge, LinkError, MqttBroker, Session

BROKER = MqttBroker(host="-", port=1, client_id="gw", receive_maximum=7)
WELCOME = bytes.fromhex("2003000000")
GRANTED = bytes.fromhex("9004000100 01".replace(" ", ""))


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += bytes(data)

    def close(self) -> None:
        self._session.connection_lost(None)

    def abort(self) -> None:
        self._session.connection_lost(None)

    async def taken(self) -> bytes:
        """What was written since the last look."""
        await asyncio.sleep(0)
        data, self.data = self.data, b""
        return data


class Seen:
    """What came, and how to acknowledge it."""

    def __init__(self) -> None:
        self.messages: list[packets.Publish] = []
        self.acknowledge: Acknowledge = lambda _: None

    def __call__(self, messages: Sequence[packets.Publish], acknowledge: Acknowledge) -> None:
        self.messages += messages
        self.acknowledge = acknowledge


async def connected(*, welcome: bytes = WELCOME, version: int = 5) -> tuple[Session, Wire, Seen]:
    seen = Seen()
    session = Session(BROKER, version, ["a/+"], seen)
    wire = Wire(session)
    session.connection_made(wire)
    assert (await wire.taken())[0] == 0x10
    session.data_received(welcome)
    assert (await wire.taken())[0] == 0x82
    session.data_received(GRANTED if version == 5 else bytes.fromhex("9003000101"))
    await session.granted
    return session, wire, seen


def telemetry(*mids: int) -> bytes:
    return b"".join(packets.publish(b"a/b", b"x", mid=mid, version=5) for mid in mids)


async def test_nothing_is_acknowledged_before_it_is_told_to() -> None:
    session, wire, seen = await connected()
    session.data_received(telemetry(1, 2, 3))
    assert await wire.taken() == b""
    seen.acknowledge([1, 2, 3])
    assert await wire.taken() == packets.puback([1, 2, 3])


async def test_an_acknowledgement_after_the_loss_reaches_nobody() -> None:
    session, wire, seen = await connected()
    session.data_received(telemetry(1))
    session.connection_lost(None)
    seen.acknowledge([1])
    assert await wire.taken() == b""


async def test_the_brokers_window_is_kept() -> None:
    welcome = bytes.fromhex("2006000003210002")  # Receive Maximum 2, section 3.2.2.3.3
    session, wire, _ = await connected(welcome=welcome)
    for number in range(5):
        assert session.publish(b"c", bytes((number,)))
    assert packets.Reader(5, 1000).feed(await wire.taken()) == sent(0, 1)
    session.data_received(packets.puback([sent_id(session, 0)]))
    assert [m.payload for m in published(await wire.taken())] == [b"\x02"]
    session.data_received(packets.puback(list(session._in_flight)))
    assert [m.payload for m in published(await wire.taken())] == [b"\x03", b"\x04"]


def sent(*numbers: int) -> list[packets.Packet]:
    """The first publications of a session whose first identifier went to its subscription."""
    return [packets.Publish(b"c", bytes((n,)), n + 2, again=False) for n in numbers]


def sent_id(session: Session, number: int) -> int:
    return sorted(session._in_flight)[number]


def published(data: bytes) -> list[packets.Publish]:
    return [p for p in packets.Reader(5, 100_000).feed(data) if isinstance(p, packets.Publish)]


async def test_a_full_socket_holds_commands_and_drops_nothing() -> None:
    session, wire, _ = await connected()
    session.pause_writing()
    assert session.publish(b"c", b"1")
    session.tell(b"d", b"one that the next makes good")
    assert await wire.taken() == b""
    session.resume_writing()
    assert [m.payload for m in published(await wire.taken())] == [b"1"]


async def test_what_waits_is_limited() -> None:
    session, _, _ = await connected()
    session.pause_writing()
    refused = sum(not session.publish(b"c", b"x") for _ in range(50_010))
    assert refused == 10


async def test_identifiers_in_flight_are_not_given_again() -> None:
    session, wire, _ = await connected()
    assert session.publish(b"c", b"first")
    (first,) = published(await wire.taken())
    for _ in range(65_535):
        assert session.publish(b"c", b"x")
        (other,) = published(await wire.taken())
        assert other.mid != first.mid
        session.data_received(packets.puback([other.mid]))


@pytest.mark.parametrize(("answer", "what"), [
    ("2003008700", "not authorized"), ("200e00890b1f00086e6f742074686973", "server busy"),
])  # fmt: skip
async def test_a_refusal_says_why(answer: str, what: str) -> None:
    session = Session(BROKER, 5, ["a/+"], Seen())
    session.connection_made(Wire(session))
    session.data_received(bytes.fromhex(answer))
    with pytest.raises(LinkError, match=what):
        await session.granted


async def test_a_goodbye_of_the_broker_is_why_the_session_is_lost() -> None:
    session, wire, _ = await connected()
    session.data_received(bytes.fromhex("e0018e"))
    wire.close()
    assert "session taken over" in await session.lost


async def test_the_brokers_keep_alive_overrules_ours() -> None:
    session, _, _ = await connected(welcome=bytes.fromhex("200600000313000f"))
    assert session.keepalive_s == 15.0


async def test_3_1_1_is_spoken_without_properties() -> None:
    session, wire, _ = await connected(welcome=bytes.fromhex("20020000"), version=4)
    assert session.publish(b"c", b"x", packets.message_properties(expiry_s=5.0))
    assert (await wire.taken()).hex() == "320600016300 02 78".replace(" ", "")


async def test_garbage_ends_the_session() -> None:
    session, _, seen = await connected()
    session.data_received(b"\xff\xff\xff\xff\xff\xff")
    assert "four bytes" in await session.lost
    assert seen.messages == []


async def test_a_topic_that_is_said_again_gets_an_alias_within_what_the_broker_takes() -> None:
    welcome = bytes.fromhex("2006000003220001")  # Topic Alias Maximum 1, section 3.2.2.3.8
    session, wire, _ = await connected(welcome=welcome)
    for topic in (b"a/1", b"a/2", b"a/1", b"a/1", b"a/2", b"a/2"):
        session.tell(topic, b"x")
    written = await wire.taken()
    assert written.hex(" ") == bytes.fromhex(
        "3007 0003612f31 00 78"  # said once: nothing is spent on it
        "3007 0003612f32 00 78"
        "300a 0003612f31 03230001 78"  # again: number 1 stands for it
        "3007 0000 03230001 78"
        "3007 0003612f32 00 78"  # the broker takes no second one
        "3007 0003612f32 00 78"
    ).hex(" ")
    assert [each.topic for each in packets.Reader(5, 1_000, 1).feed(written)] == [  # type: ignore[union-attr]
        b"a/1", b"a/2", b"a/1", b"a/1", b"a/2", b"a/2"
    ]  # fmt: skip


@pytest.mark.parametrize("welcome", ["2003000000", "2006000003220000"])
async def test_a_broker_that_takes_no_alias_gets_none(welcome: str) -> None:
    session, wire, _ = await connected(welcome=bytes.fromhex(welcome))
    for _ in range(3):
        session.publish(b"a/1", b"x")
    assert (await wire.taken()).count(b"a/1") == 3


async def test_the_brokers_aliases_are_understood_and_end_with_the_connection() -> None:
    given = bytes.fromhex("300a0003612f6203230007 78")  # section 3.3.2.3.4
    used = bytes.fromhex("3007 0000 03230007 79")
    session, _, seen = await connected()
    session.data_received(given + used)
    assert [(one.topic, one.payload) for one in seen.messages] == [(b"a/b", b"x"), (b"a/b", b"y")]
    again, _, nothing = await connected()
    again.data_received(used)
    assert (nothing.messages, await again.lost) == (
        [], "the topic alias 7, which was never given a topic"
    )  # fmt: skip


@pytest.mark.parametrize("alias", ["0000", "1001"])
async def test_an_alias_that_was_not_allowed_ends_the_session(alias: str) -> None:
    session, _, seen = await connected()
    session.data_received(bytes.fromhex(f"300a 0003612f62 0323{alias} 78"))
    assert "1 to 4096 are allowed" in await session.lost
    assert seen.messages == []
