"""Packets of the fleet's devices: as the specification prints them, and as paho sends them.

Sections are those of OASIS "MQTT Version 5.0".
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from adapters.mqtt import packets as gateways
from firmware_sim.fleet import packets

HOST = "127.0.0.1"
WILL = packets.Will(b"a/status", b'{"v": 1, "online": false}')
WELCOME = {True: bytes.fromhex("20 03 00 00 00"), False: bytes.fromhex("20 02 00 00")}
SUBSCRIBED = {True: "90 05 {mid} 00 01 01", False: "90 04 {mid} 01 01"}


class Ear:
    """A broker that hears one client: keeps its bytes, answers as little as it can."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None

    def packet(self) -> bytes:
        """The next packet from the client, whole."""
        if self._connection is None:
            self._listener.settimeout(10)
            self._connection, _ = self._listener.accept()
            self._connection.settimeout(10)
        head = self._exactly(2)
        while head[-1] & 0x80:
            head += self._exactly(1)
        length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(head[1:]))
        return head + self._exactly(length)

    def say(self, data: bytes) -> None:
        assert self._connection is not None
        self._connection.sendall(data)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listener.close()

    def _exactly(self, count: int) -> bytes:
        assert self._connection is not None
        data = b""
        while len(data) < count:
            more = self._connection.recv(count - len(data))
            assert more, "the client hung up"
            data += more
        return data


@contextlib.contextmanager
def paho_client(*, five: bool, **login: str) -> Iterator[tuple[paho.Client, Ear]]:
    """A paho client that connects with the same words as a device of the fleet."""
    version = paho.MQTTv5 if five else paho.MQTTv311
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id="mq-ev-00001", protocol=version,
        clean_session=None if five else False,
    )  # fmt: skip
    client.will_set(WILL.topic.decode(), WILL.payload, qos=1, retain=True)
    if login:
        client.username_pw_set(login["username"], login["password"])
    properties = None
    if five:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3_600
        properties.ReceiveMaximum = 16
        properties.MaximumPacketSize = packets.LARGEST
    ear = Ear()
    try:
        client.connect(
            HOST, ear.port, keepalive=60, properties=properties,
            **({"clean_start": False} if five else {}),
        )  # fmt: skip
        client.loop_start()
        yield client, ear
    finally:
        client.disconnect()
        client.loop_stop()
        ear.close()


@pytest.mark.parametrize("five", [True, False], ids=["5", "3.1.1"])
@pytest.mark.parametrize("login", [{}, {"username": "mq-ev-00001", "password": "s3cret"}],
                         ids=["bare", "login"])  # fmt: skip
def test_a_device_says_what_paho_says(*, five: bool, login: dict[str, str]) -> None:
    with paho_client(five=five, **login) as (client, ear):
        ours = packets.connect(
            "mq-ev-00001", five=five, keepalive_s=60, session_s=3_600, in_flight=16, will=WILL,
            **login,
        )  # fmt: skip
        assert ear.packet() == ours
        up = threading.Event()
        client.on_connect = lambda *_: up.set()
        ear.say(WELCOME[five])
        assert up.wait(10)
        client.subscribe([("a/command", 1), ("a/stored", 1)])
        heard = ear.packet()
        mid = int.from_bytes(heard[2:4], "big")
        assert heard == packets.subscribe(mid, (b"a/command", b"a/stored"), five=five)
        ear.say(bytes.fromhex(SUBSCRIBED[five].format(mid=f"{mid:04x}")))
        for payload, retain in ((b"short", False), (b"x" * 200, True), (b"y" * 20_000, False)):
            said = client.publish("a/telemetry", payload, qos=1, retain=retain)
            assert ear.packet() == packets.publish(
                b"a/telemetry", payload, said.mid, five=five, retain=retain
            )
            ear.say(packets.puback(said.mid))
            said.wait_for_publish(10)
        body = b"\x00\x09a/command\x01\x02" + (b"\x00" if five else b"") + b"hello"
        ear.say(bytes((0x32, len(body))) + body)
        assert ear.packet() == packets.puback(0x0102)
        client.disconnect()
        assert ear.packet() == packets.GOODBYE


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"),
     (65_536, "808004")],
)  # fmt: skip
def test_lengths_are_those_of_table_1_1(value: int, encoded: str) -> None:
    """Section 1.5.5."""
    packet = packets._packet(0x32, b"x" * value)
    assert packet[1 : -value or None].hex() == encoded
    assert packets._length(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


def test_the_names_example_of_the_specification() -> None:
    """Section 1.5.4: the string A and U+2A6D4."""
    assert packets._string("A\U0002a6d4".encode()).hex(" ") == "00 05 41 f0 aa 9b 94"


@pytest.mark.parametrize("five", [True, False], ids=["5", "3.1.1"])
def test_a_connack_says_whether_the_session_is_there(*, five: bool) -> None:
    properties = bytes.fromhex("08 21 00 14 22 00 0a 24 01") if five else b""
    [frame], rest = packets.frames(bytes((0x20, 2 + len(properties), 1, 0)) + properties)
    assert rest == b""
    found = packets.welcome(frame, five=five)
    assert found == (True, 0, 20 if five else 65_535)


def test_texts_among_the_properties_are_passed_over() -> None:
    """A reason (31), an assigned name (18) and a user property (38) before a Receive Maximum."""
    own = bytes.fromhex("1f 00 02 6e 6f 12 00 01 61 26 00 01 6b 00 01 76 21 00 07")
    [frame], _ = packets.frames(bytes((0x20, 3 + len(own), 0, 0, len(own))) + own)
    assert packets.welcome(frame, five=True).receive_maximum == 7


@pytest.mark.parametrize("five", [True, False], ids=["5", "3.1.1"])
def test_what_the_gateways_codec_sends_a_device_understands(*, five: bool) -> None:
    version = gateways.V5 if five else gateways.V311
    properties = gateways.message_properties(expiry_s=5.0, correlation=b"spt")
    sent = gateways.publish(b"a/command", b"payload", mid=9, version=version,
                            properties=properties)  # fmt: skip
    sent += gateways.publish(b"a/stored", b"told", mid=0, version=version)
    found, rest = packets.frames(sent)
    assert rest == b""
    assert [packets.message(frame, five=five) for frame in found] == [
        (b"a/command", b"payload", 9), (b"a/stored", b"told", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("five", [True, False], ids=["5", "3.1.1"])
def test_what_a_device_sends_the_gateways_codec_understands(*, five: bool) -> None:
    reader = gateways.Reader(gateways.V5 if five else gateways.V311, 1_000_000)
    packet = packets.publish(b"a/ack", b"x" * 300, 77, five=five)
    first, again = reader.feed(packet + packets.again(packet))
    assert first == gateways.Publish(b"a/ack", b"x" * 300, 77, again=False)
    assert again == gateways.Publish(b"a/ack", b"x" * 300, 77, again=True)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), five=st.booleans())
def test_no_bytes_break_a_device(data: bytes, five: bool) -> None:  # noqa: FBT001 - hypothesis
    readers: list[Callable[[packets.Frame], object]] = [
        lambda frame: packets.message(frame, five=five),
        lambda frame: packets.welcome(frame, five=five),
        packets.acknowledged,
    ]
    try:
        found, rest = packets.frames(data)
    except packets.FrameError:
        return
    assert sum(len(frame.body) + 2 for frame in found) + len(rest) <= len(data)
    for frame in found:
        for read in readers:
            with contextlib.suppress(packets.FrameError):
                read(frame)


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 60), five=st.booleans())
def test_a_stream_may_be_cut_anywhere(cut: int, five: bool) -> None:  # noqa: FBT001 - hypothesis
    stream = packets.puback(3) + packets.publish(b"t", b"x" * 40, 4, five=five) + b"\xd0\x00"
    first, rest = packets.frames(stream[:cut])
    second, left = packets.frames(rest + stream[cut:])
    assert left == b""
    assert [frame.kind for frame in (*first, *second)] == [
        packets.PUBACK, packets.PUBLISH, packets.PINGRESP,
    ]  # fmt: skip
