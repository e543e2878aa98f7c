"""MQTT: our payloads and topics, and the packets that a broker sends."""

from __future__ import annotations

import random
from typing import Final

from adapters.mqtt import packets, wire
from adapters.mqtt.packets import V5, V311, PacketError, Reader
from adapters.mqtt.wire import WireError
from tests.fuzz.corpus import load
from tests.fuzz.judge import Target
from tests.fuzz.mutation import LONGEST
from tests.golden.mqtt import test_mqtt_golden as golden

MAXIMUM: Final = 65_536
DECODERS: Final = (
    wire.decode_telemetry,
    wire.decode_command,
    wire.decode_acknowledgement,
    wire.decode_stored,
    wire.decode_status,
)
TOPIC: Final = b"flexway/"


def payload(frame: bytes) -> bool:
    """Each decoder, or the topic; what is understood can be said again and means the same."""
    if frame.startswith(TOPIC):
        organisation, device, kind = wire.split_topic(frame.decode("utf-8", "surrogateescape"))
        return wire.topic(organisation, device, kind).encode() == frame  # type: ignore[arg-type]
    understood = 0
    for decode in DECODERS:
        try:
            found = decode(frame)
        except WireError:
            continue
        understood += 1
        assert decode(wire.encode(found)) == found  # type: ignore[arg-type]
    return understood > 0


def stream(frame: bytes) -> bool:
    """A reader of either version; pieces of a stream say what the whole says."""
    frame = frame[:LONGEST]  # of two bytes each these are 4,096 packets
    understood = 0
    for version in (V5, V311):
        whole = _read(version, [frame])
        understood += bool(whole)
        cut = len(frame) // 3
        pieces = _read(version, [frame[:cut], frame[cut:]])
        assert whole is None or pieces is None or whole == pieces
        assert (whole is None) is (pieces is None)
    return understood > 0


def _read(version: int, pieces: list[bytes]) -> list[packets.Packet] | None:
    reader = Reader(version, MAXIMUM, aliases=10)
    try:
        return [packet for piece in pieces for packet in reader.feed(piece)]
    except PacketError:
        return None


def some_payload(rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    if kind == 0:
        return wire.topic(_name(rng), _name(rng), rng.choice(wire.FROM_DEVICES)).encode()
    if kind == 1:
        return wire.encode(wire.Stored(boot=rng.getrandbits(40), through=rng.getrandbits(60)))
    if kind == 2:
        return wire.encode(wire.Status(online=rng.random() < 0.5, boot=rng.getrandbits(30)))
    if kind == 3:
        return wire.encode(
            wire.Acknowledgement(
                id=_name(rng),
                status=rng.choice(("applied", "refused", "stale")),
                reason=_name(rng),
                power_w=rng.uniform(-1e9, 1e9),
                lease_s=rng.uniform(0, 1e5),
            )
        )
    if kind == 4:
        return wire.encode(
            wire.Command(
                kind=rng.choice(("set", "release", "query")),
                id=_name(rng),
                power_w=rng.gauss(0, 1e4),
                lease_s=rng.uniform(0, 1e5),
                ttl_s=rng.uniform(0, 60),
            )
        )
    return wire.encode(
        wire.Telemetry(
            boot=rng.getrandbits(32),
            readings=[
                wire.WireReading(
                    rng.getrandbits(62),
                    1 + rng.getrandbits(50),
                    rng.uniform(1, 60),
                    rng.gauss(0, 1e4),
                    soc_wh=rng.uniform(0, 1e5),
                )
                for _ in range(rng.randrange(8))
            ],
        )
    )


def some_packets(rng: random.Random) -> bytes:
    version = rng.choice((V5, V311))
    found = [_packet(rng, version) for _ in range(1 + rng.randrange(4))]
    return b"".join(found)


def _packet(rng: random.Random, version: int) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return packets.puback([rng.randrange(1, 65_536)])
    if kind == 1:
        return b"\x20\x03\x00\x00\x00" if version == V5 else b"\x20\x02\x01\x00"
    if kind == 2:
        return bytes.fromhex(rng.choice(("d000", "e000", "9003000100", "900400010001", "e00100")))
    properties = packets.message_properties(
        correlation=rng.randbytes(8), expiry_s=rng.getrandbits(31)
    )
    if rng.random() < 0.3:
        properties = packets.with_alias(properties, rng.randrange(20))
    return packets.publish(
        _name(rng).encode(),
        rng.randbytes(rng.randrange(40)),
        mid=rng.randrange(2) * 7,
        version=version,
        properties=properties,
    )


def _name(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefgh0123-_é世", k=1 + rng.randrange(12)))


TARGETS = (
    Target(
        "mqtt_payload",
        payload,
        (WireError,),
        share=30,
        make=some_payload,
        seeds=[
            *(data for data, *_ in golden.VECTORS),
            wire.topic("org", "dev-1", "ack").encode(),
            *load("mqtt_payload"),
        ],
        tokens=(
            b"{",
            b"[",
            b'"v"',
            b"\x91",
            b"\x99",
            b"\xdc\xff\xff",
            b"\xdd\xff\xff\xff\xff",
            b"\xc1",
            b"\xdf\x00\x01\x00\x00",
            b"\xdb\xff\xff\xff\xff",
            b"\xcb\x7f\xf0" + bytes(6),
            b"\xcb\x7f\xf8" + bytes(6),
            b"\xa176",
            b"readings",
            b"flexway/v1/",
            b"/telemetry",
        ),
    ),
    Target(
        "mqtt_packets",
        stream,
        (),
        share=25,
        make=some_packets,
        seeds=[
            bytes.fromhex(text)
            for text in (
                "200300000022",
                "201300001021000a27000fffff1300201f000161",
                "20020100",
                "320a0003612f62000a68656c",
                "400400019000",
                "900400010001",
                "d000",
                "e00000",
                "e0078e051f00026279",
                "3e00",
                "30050001610068",
            )
        ]
        + load("mqtt_packets"),
        tokens=(
            b"\x20",
            b"\x30",
            b"\x32",
            b"\x40",
            b"\x90",
            b"\xe0",
            b"\x26\x00\x01a\x00\x01b",
            b"\x1f\x00\x05hello",
            b"\x0b\x80\x80\x80\x01",
            b"\xff\xff\xff\x7f",
            b"\x80\x80\x80\x80",
        ),
    ),
)
