"""Sparkplug B: payloads, topics and the STATE of a host."""

from __future__ import annotations

import random

from adapters.mqtt import sparkplug_payload as types
from adapters.mqtt import sparkplug_topic, sparkplug_wire
from adapters.mqtt.sparkplug_payload import DataType, Metric, Payload
from adapters.mqtt.wire import WireError
from tests.fuzz.corpus import load
from tests.fuzz.judge import Target
from tests.golden.sparkplug import test_sparkplug_golden as golden

_FLOAT32 = (0.0, -1.5, 3.25, 6600.0, 1e30)


def payload(frame: bytes) -> bool:
    """What is understood can be said again: the second writing is the first one's."""
    if frame.startswith(b"spBv1.0"):
        name = frame.decode("utf-8", "surrogateescape")
        return str(sparkplug_topic.parse(name)) == name
    if frame.startswith(b"{"):
        state = sparkplug_topic.decode_state(frame)
        assert sparkplug_topic.decode_state(sparkplug_topic.encode_state(state)) == state
        return True
    written = sparkplug_wire.encode(sparkplug_wire.decode(frame))
    assert sparkplug_wire.encode(sparkplug_wire.decode(written)) == written
    return True


def some_payload(rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        state = sparkplug_topic.State(online=rng.random() < 0.5, timestamp=rng.getrandbits(40))
        return sparkplug_topic.encode_state(state)
    metrics = tuple(_metric(rng) for _ in range(rng.randrange(10)))
    return sparkplug_wire.encode(
        Payload(timestamp_ms=rng.getrandbits(41), seq=rng.randrange(256), metrics=metrics)
    )


def _metric(rng: random.Random) -> Metric:
    kind = rng.choice(
        [*types.INTEGERS, *types.FLOATS, DataType.BOOLEAN, DataType.STRING, DataType.BYTES]
    )
    value: types.Value
    if kind in types.INTEGERS:
        bits = types.INTEGERS[kind]
        value = rng.getrandbits(bits) - (1 << bits - 1 if kind.name.startswith("INT") else 0)
    elif kind in types.FLOATS:
        value = rng.choice(_FLOAT32)
    elif kind is DataType.BOOLEAN:
        value = rng.random() < 0.5
    else:
        value = "téxt" if kind is DataType.STRING else rng.randbytes(9)
    born = rng.random() < 0.5
    return Metric(
        name=f"Properties/{rng.randrange(99)}" if born else None,
        alias=rng.getrandbits(6),
        timestamp_ms=rng.getrandbits(41),
        datatype=kind if born else None,
        value=value if born else types.as_raw(value, kind),
    )


TARGETS = (
    Target(
        "sparkplug",
        payload,
        (WireError,),
        share=20,
        make=some_payload,
        seeds=[
            golden.NBIRTH,
            golden.DBIRTH,
            golden.DDATA,
            golden.NDEATH,
            golden.NCMD,
            golden.DCMD,
            golden.SKIPPED,
            b'{"online":true,"timestamp":1486144502122}',
            b"spBv1.0/group/DDATA/node/device",
            b"spBv1.0/group/NBIRTH/node",
            *load("sparkplug"),
        ],
        tokens=(
            b"\x12\x05",
            b"\x08",
            b"\x18",
            b"\x20\x0a",
            b"\x50",
            b"\x58",
            b"\x65",
            b"\x69",
            b"\x70",
            b"\x7a",
            b"\x82\x01",
            b"\x8a\x01",
            b"\x12\xff\xff\xff\xff\x0f",
            b'{"a":',
            b"[",
            b"/",
        ),
    ),
)
