"""Bytes of MQTT, pinned to OASIS "MQTT Version 5.0" and to what paho makes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from adapters.mqtt import packets
from adapters.mqtt.packets import V5, V311, PacketError, Reader

MAXIMUM = 1_048_576
VARINTS = {  # table 1-1 of section 1.5.5: the smallest and largest of each size
    0: "00", 127: "7f", 128: "8001", 16_383: "ff7f", 16_384: "808001", 2_097_151: "ffff7f",
    2_097_152: "80808001", 268_435_455: "ffffff7f",
}  # fmt: skip


def reader(version: int = V5) -> Reader:
    return Reader(version, MAXIMUM)


@pytest.mark.parametrize(("value", "data"), VARINTS.items())
def test_lengths_are_those_of_table_1_1(value: int, data: str) -> None:
    assert packets._varint(value).hex() == data
    assert packets._variable(bytes.fromhex(data), 0) == (value, len(data) // 2)


def test_connect_of_3_1_1_is_that_of_section_3_1() -> None:
    made = packets.connect("gw", version=V311, keepalive_s=30, username="u", password="p")
    # fixed header, "MQTT", level 4, flags user + password, keep alive 30, id, user, password
    assert (
        made.hex() == "1014" + "00044d515454" + "04" + "c0" + "001e" + "00026777" + "000175000170"
    )


def test_connect_of_5_carries_its_limits_as_paho_reads_them() -> None:
    asked = {packets.SESSION_EXPIRY: 86_400, packets.RECEIVE_MAXIMUM: 1_000,
             packets.MAXIMUM_PACKET: MAXIMUM}  # fmt: skip
    made = packets.connect("gw", version=V5, keepalive_s=30, clean=True, properties=asked)
    assert made[2:12].hex() == "00044d51545405" + "02" + "001e"
    theirs = Properties(PacketTypes.CONNECT)
    theirs.unpack(made[12:])
    assert theirs.json() == {
        "SessionExpiryInterval": 86_400, "ReceiveMaximum": 1_000, "MaximumPacketSize": MAXIMUM,
    }  # fmt: skip


def test_publish_carries_expiry_and_correlation_as_paho_reads_them() -> None:
    asked = packets.message_properties(expiry_s=60.0, correlation=b"spt_1")
    made = packets.publish(b"a/b", b"hello", mid=10, version=V5, properties=asked)
    assert made[:9].hex() == "321a0003612f62000a"
    theirs = Properties(PacketTypes.PUBLISH)
    _, used = theirs.unpack(made[9:])
    assert theirs.json() == {"MessageExpiryInterval": 60, "CorrelationData": b"spt_1".hex()}
    assert made[9 + used :] == b"hello"
    (read,) = reader().feed(made)
    assert read == packets.Publish(b"a/b", b"hello", 10, again=False)


@pytest.mark.parametrize("length", [0, 1, 90, 118, 119, 4_000, 16_360, 16_384, 70_000])
def test_a_message_of_any_length_is_read_as_it_was_written(length: int) -> None:
    """Section 1.5.5: its length takes one byte more at 128, 16,384 and 2,097,152."""
    for version in (V5, V311):
        made = packets.publish(b"a/b", bytes(length), mid=10, version=version)
        assert reader(version).feed(made) == [packets.Publish(b"a/b", bytes(length), 10, False)]


def test_properties_of_a_message_are_read_by_paho_as_they_were_given() -> None:
    """Section 3.3.2.3; a response topic so long that the properties' length takes two bytes."""
    answer = b"flexway/v1/org/00/" + b"d" * 120 + b"/ack"
    made = packets.message_properties(expiry_s=0.2, correlation=b"spt_1", answer_to=answer)
    theirs = Properties(PacketTypes.PUBLISH)
    _, used = theirs.unpack(made)
    assert used == len(made)
    assert theirs.json() == {
        "MessageExpiryInterval": 1, "CorrelationData": b"spt_1".hex(),
        "ResponseTopic": answer.decode(),
    }  # fmt: skip
    endless = packets.message_properties(expiry_s=1e12)
    theirs.unpack(endless)
    assert theirs.json()["MessageExpiryInterval"] == 2**32 - 1
    assert packets.message_properties() == b"\0"


def test_publish_of_section_3_3_in_both_versions_and_qualities() -> None:
    # figure 3.8 and table 3.6: topic a/b, packet identifier 10
    at_qos_1 = bytes.fromhex("3a0a0003612f62000a000102")
    assert reader().feed(at_qos_1) == [packets.Publish(b"a/b", b"\x01\x02", 10, again=True)]
    at_qos_0 = packets.publish(b"a/b", b"x", mid=0, version=V311)
    assert at_qos_0.hex() == "30060003612f6278"
    assert reader(V311).feed(at_qos_0) == [packets.Publish(b"a/b", b"x", 0, again=False)]


def test_subscribe_is_that_of_section_3_8() -> None:
    made = packets.subscribe(10, ["a/b", "c/d"], version=V5)
    assert made.hex() == "820f000a00" + "0003612f6201" + "0003632f6401"
    assert packets.subscribe(10, ["a/b"], version=V311).hex() == "8208000a0003612f6201"


def test_acknowledgements_go_together_and_in_order() -> None:
    assert packets.puback([1, 258, 65_535]).hex() == "40020001" + "40020102" + "4002ffff"
    assert reader().feed(bytes.fromhex("4002000140030002104004000310 00".replace(" ", ""))) == [
        packets.Acknowledged(1, 0), packets.Acknowledged(2, 0x10), packets.Acknowledged(3, 0x10),
    ]  # fmt: skip


def test_what_a_broker_grants_is_read_with_every_property_there_is() -> None:
    theirs = Properties(PacketTypes.CONNACK)
    theirs.ReceiveMaximum, theirs.MaximumPacketSize, theirs.ServerKeepAlive = 20, 100, 15
    theirs.AssignedClientIdentifier, theirs.ReasonString = "auto-1", "be quick"
    theirs.UserProperty = [("a", "b"), ("c", "d")]
    theirs.RetainAvailable, theirs.SessionExpiryInterval = 0, 60
    body = b"\x01\x00" + theirs.pack()
    (packet,) = reader().feed(bytes((0x20, len(body))) + body)
    assert isinstance(packet, packets.Connected)
    assert (packet.session_present, packet.code) == (True, 0)
    assert packet.properties[packets.RECEIVE_MAXIMUM] == 20
    assert packet.properties[packets.SERVER_KEEP_ALIVE] == 15
    assert packet.properties[packets.REASON] == b"be quick"


def test_a_goodbye_says_why() -> None:
    theirs = Properties(PacketTypes.DISCONNECT)
    theirs.ReasonString = "taken over"
    body = b"\x8e" + theirs.pack()
    assert reader().feed(bytes((0xE0, len(body))) + body + b"\xe0\x00\xd0\x00") == [
        packets.Disconnected(0x8E, "taken over"), packets.Disconnected(0, ""), packets.Pong(),
    ]  # fmt: skip


@pytest.mark.parametrize(("data", "what"), [
    ("3408000161000a0078", "QoS 2"), ("f000", "type 15"), ("1000", "type 1"),
    ("30ffffffff7f", "more than four"), ("30808080017f", "allowed"), ("200100", "too early"),
    ("32030005610001", "before its topic"), ("e0030002ff00", "MQTT does not know"),
])  # fmt: skip
def test_what_no_broker_may_send_ends_the_connection(data: str, what: str) -> None:
    with pytest.raises(PacketError, match=what):
        reader().feed(bytes.fromhex(data) + bytes(8))


messages = st.builds(
    packets.Publish, st.binary(min_size=1, max_size=40), st.binary(max_size=300),
    st.integers(0, 65_535), st.just(False),
)  # fmt: skip


@given(st.lists(messages, max_size=20), st.sampled_from([V5, V311]), st.data())
def test_a_stream_says_the_same_however_it_is_cut(
    sent: list[packets.Publish], version: int, data: st.DataObject
) -> None:
    stream = b"".join(
        packets.publish(each.topic, each.payload, mid=each.mid, version=version) for each in sent
    )
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=30)))
    taken, found = reader(version), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += taken.feed(stream[start:end])
    assert found == sent


@given(st.binary(max_size=200), st.sampled_from([V5, V311]))
def test_no_bytes_break_the_reader(data: bytes, version: int) -> None:
    try:
        found = reader(version).feed(data)
    except PacketError:
        return
    assert len(found) <= len(data) // 2
