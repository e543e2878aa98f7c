"""Exact bytes of the MQTT profile, version 1: two symmetric mistakes cannot hide here.

Each vector was written by hand from the MessagePack specification (format families of
msgpack/spec.md) and docs/mqtt.md, in hex, with the meaning beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adapters.mqtt import wire

TELEMETRY = bytes.fromhex(
    "84"  # map of 4
    "a176 01"  # "v": 1
    "a4626f6f74 02"  # "boot": 2
    "a872656164696e6773 91"  # "readings": array of 1
    "99"  # array of 9
    "07"  # sequence 7
    "cf00055b84b429c400"  # start 1508000400000000 us, 2017-10-14T17:00:00Z
    "cb404e000000000000"  # 60 s
    "cbc0b9c80000000000"  # -6600 W
    "cbc0b9000000000000"  # -6400 W
    "cb40a9000000000000"  # 3200 Wh
    "c3"  # available
    "cb40b1940000000000"  # wants 4500 Wh
    "cf00055b84b429c400"  # leaves at 1508000400000000 us
    "a66f6c64657374 05"  # "oldest": 5
)
COMMAND = bytes.fromhex(
    "8a"  # map of 10
    "a176 01"
    "a46b696e64 a3736574"  # "kind": "set"
    "a26964 a55350542d31"  # "id": "SPT-1"
    "a86f726465725f6964 a54f52442d31"  # "order_id": "ORD-1"
    "a87265766973696f6e 02"  # "revision": 2
    "a7706f7765725f77 cbc09f400000000000"  # "power_w": -2000.0
    "a76c656173655f73 cb404e000000000000"  # "lease_s": 60.0
    "a574746c5f73 cb4014000000000000"  # "ttl_s": 5.0
    "ab7374617274735f696e5f73 cb0000000000000000"  # "starts_in_s": 0.0
    "ab76616c69645f666f725f73 cb40ac200000000000"  # "valid_for_s": 3600.0
)
ANSWER = bytes.fromhex(
    "87"
    "a176 01"
    "a26964 a55350542d31"
    "a6737461747573 a76170706c696564"  # "status": "applied"
    "a6726561736f6e a0"  # "reason": ""
    "ab736574706f696e745f6964 a55350542d31"  # "setpoint_id": "SPT-1"
    "a7706f7765725f77 cbc09f400000000000"
    "a76c656173655f73 cb404e000000000000"
)
STORED = bytes.fromhex("83 a176 01 a4626f6f74 02 a77468726f756768 cd0100")  # through 256
STATUS = bytes.fromhex("83 a176 01 a66f6e6c696e65 c3 a4626f6f74 02")  # online
STATUS_JSON = b'{"v":1,"online":true,"boot":2}'

VECTORS: list[tuple[bytes, wire.Payload, Callable[[bytes], object]]] = [
    (
        TELEMETRY,
        wire.Telemetry(
            boot=2,
            readings=[
                wire.WireReading(
                    7, 1_508_000_400_000_000, 60.0, -6600.0, -6400.0, 3200.0, True, 4500.0,
                    1_508_000_400_000_000,
                )
            ],
            oldest=5,
        ),
        wire.decode_telemetry,
    ),
    (
        COMMAND,
        wire.Command(
            kind="set", id="SPT-1", order_id="ORD-1", revision=2, power_w=-2000.0, lease_s=60.0,
            ttl_s=5.0, valid_for_s=3600.0,
        ),
        wire.decode_command,
    ),
    (
        ANSWER,
        wire.Acknowledgement(
            id="SPT-1", status="applied", setpoint_id="SPT-1", power_w=-2000.0, lease_s=60.0
        ),
        wire.decode_acknowledgement,
    ),
    (STORED, wire.Stored(boot=2, through=256), wire.decode_stored),
    (STATUS, wire.Status(online=True, boot=2), wire.decode_status),
]  # fmt: skip


@pytest.mark.parametrize(("data", "value", "decode"), VECTORS)
def test_payload_has_exactly_these_bytes(
    data: bytes, value: wire.Payload, decode: Callable[[bytes], object]
) -> None:
    assert wire.encode(value).hex(" ") == data.hex(" ")
    assert decode(data) == value


def test_a_device_may_leave_out_what_stands_last_in_a_reading() -> None:
    short = bytes.fromhex(
        "83 a176 01 a4626f6f74 02 a872656164696e6773 91 94 07 cf00055b84b429c400"
        "cb404e000000000000 cbc0b9c80000000000"
    )
    reading = wire.decode_telemetry(short).readings[0]
    assert reading == wire.WireReading(7, 1_508_000_400_000_000, 60.0, -6600.0)
    assert (reading.available, reading.wanted_wh, reading.leaves_us) == (True, None, None)


def test_json_of_a_device_means_the_same() -> None:
    assert wire.decode_status(STATUS_JSON) == wire.decode_status(STATUS)


# SHA-256 of the device id, its first four bytes as a big-endian number modulo 256, so the
# fourth byte: `printf ev-00001 | sha256sum | cut -c7-8`.
@pytest.mark.parametrize(
    ("device", "shard"), [("ev-00001", "2e"), ("bat-1", "a6"), ("Wärmepumpe 7", "51")]
)
def test_shards_in_topics_are_fixed_for_ever(device: str, shard: str) -> None:
    assert wire.topic("org_a", device, "ack") == f"flexway/v1/org_a/{shard}/{device}/ack"
