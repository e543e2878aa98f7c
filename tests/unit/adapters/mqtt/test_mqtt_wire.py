"""The codec alone: what goes in comes out, and nothing but WireError ever comes out wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mqtt import wire
from marketplace_core.ids import shard_of

WATTS = st.floats(-1e9, 1e9, allow_nan=False)
SECONDS = st.floats(0.0, 1e9)
COUNT = st.integers(0, 2**62)
IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=wire.MAX_ID)
REASONS = st.text(st.characters(exclude_categories=["Cs"]), max_size=wire.MAX_REASON)
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/+#\0"), min_size=1, max_size=40
)
READINGS = st.builds(
    wire.WireReading,
    sequence=COUNT,
    start_us=st.integers(1, 4_102_444_799_999_999),
    seconds=st.floats(0.0, 86_400.0, exclude_min=True),
    power_w=WATTS,
    sample_w=st.none() | WATTS,
    soc_wh=st.none() | st.floats(0.0, 1e12),
    available=st.booleans(),
)
TELEMETRY = st.builds(
    wire.Telemetry,
    boot=COUNT,
    readings=st.lists(READINGS, max_size=20),
    oldest=st.none() | COUNT,
)
COMMANDS = st.builds(
    wire.Command,
    kind=st.sampled_from(["set", "release", "query"]),
    id=IDS, order_id=IDS, revision=COUNT, power_w=WATTS, lease_s=SECONDS, ttl_s=SECONDS,
    starts_in_s=SECONDS, valid_for_s=SECONDS,
)  # fmt: skip
ANSWERS = st.builds(
    wire.Acknowledgement,
    id=IDS, status=st.sampled_from(["applied", "refused", "stale"]), reason=REASONS,
    setpoint_id=st.none() | IDS, power_w=st.none() | WATTS, lease_s=st.none() | SECONDS,
)  # fmt: skip
STORED = st.builds(wire.Stored, boot=COUNT, through=COUNT)
STATUS = st.builds(wire.Status, online=st.booleans(), boot=COUNT)
DECODERS: list[Callable[[bytes], object]] = [
    wire.decode_telemetry,
    wire.decode_command,
    wire.decode_acknowledgement,
    wire.decode_stored,
    wire.decode_status,
]
PAIRS = st.one_of(
    *(
        st.tuples(values, st.just(decode))
        for values, decode in zip((TELEMETRY, COMMANDS, ANSWERS, STORED, STATUS), DECODERS,
                                  strict=True)
    )
)  # fmt: skip


@given(PAIRS)
def test_what_is_encoded_is_decoded_again(
    pair: tuple[wire.Payload, Callable[[bytes], object]],
) -> None:
    value, decode = pair
    assert decode(wire.encode(value)) == value
    assert decode(msgspec.json.encode(value)) == value


@given(PAIRS)
def test_independent_library_reads_what_we_write(
    pair: tuple[wire.Payload, Callable[[bytes], object]],
) -> None:
    value, decode = pair
    plain = msgpack.unpackb(wire.encode(value))
    assert decode(msgpack.packb(plain)) == value


@given(st.binary(max_size=400), st.sampled_from(DECODERS))
def test_arbitrary_bytes_raise_nothing_but_wire_errors(
    data: bytes, decode: Callable[[bytes], object]
) -> None:
    for payload in (data, b"{" + data, b"\x83\xa1v\x01" + data):
        try:
            decode(payload)
        except wire.WireError as error:
            assert error.evidence == payload  # noqa: PT017 - either outcome is right


@given(PAIRS, st.data())
def test_damaged_payloads_raise_nothing_but_wire_errors(
    pair: tuple[wire.Payload, Callable[[bytes], object]], data: st.DataObject
) -> None:
    value, decode = pair
    payload = bytearray(wire.encode(value))
    where = data.draw(st.integers(0, len(payload) - 1))
    payload[where] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    for damaged in (bytes(payload), bytes(payload[:cut])):
        try:
            decode(damaged)
        except wire.WireError:
            continue


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b"\x91", b"\x81\xa1a"])
def test_deep_nesting_is_a_wire_error(opening: bytes) -> None:
    payload = opening * (wire.MAX_PAYLOAD // len(opening))
    with pytest.raises(wire.WireError):
        wire.decode_telemetry(payload)


def test_limits_are_limits() -> None:
    sample = wire.WireReading(0, 1, 60.0, -1.0)
    fits = wire.encode(wire.Telemetry(boot=0, readings=[sample] * wire.MAX_READINGS))
    assert len(fits) <= wire.MAX_PAYLOAD
    assert len(wire.decode_telemetry(fits).readings) == wire.MAX_READINGS
    with pytest.raises(wire.WireError, match="malformed telemetry"):
        wire.decode_telemetry(
            wire.encode(wire.Telemetry(boot=0, readings=[sample] * (wire.MAX_READINGS + 1)))
        )
    with pytest.raises(wire.WireError, match="bytes in one message") as caught:
        wire.decode_telemetry(b"\x00" * (wire.MAX_PAYLOAD + 1))
    assert len(caught.value.evidence) == 256


@pytest.mark.parametrize(
    "reading",
    [
        [-1, 1, 60.0, 0.0],
        [2**63, 1, 60.0, 0.0],
        [0, 0, 60.0, 0.0],
        [0, 4_102_444_800_000_000, 60.0, 0.0],
        [0, 1, 0.0, 0.0],
        [0, 1, 86_401.0, 0.0],
        [0, 1, 60.0, math.nan],
        [0, 1, 60.0, math.inf],
        [0, 1, 60.0, 0.0, math.nan],
        [0, 1, 60.0, 0.0, None, -1.0],
        [0, 1, 60.0, "0"],
        [0, 1, 60.0],
    ],
)
def test_numbers_no_meter_can_mean_are_refused(reading: list[object]) -> None:
    payload = msgpack.packb({"v": 1, "boot": 0, "readings": [reading]})
    with pytest.raises(wire.WireError):
        wire.decode_telemetry(payload)


@pytest.mark.parametrize(
    "change",
    [{"power_w": math.nan}, {"lease_s": math.inf}, {"lease_s": -1.0}, {"reason": "x" * 513},
     {"id": "x" * 129}, {"status": "perhaps"}, {"v": 2}],
)  # fmt: skip
def test_answers_that_would_poison_the_journal_are_refused(change: dict[str, object]) -> None:
    good = {"v": 1, "id": "spt_1", "status": "applied", "power_w": -1.0, "lease_s": 5.0}
    assert wire.decode_acknowledgement(msgpack.packb(good)).id == "spt_1"
    with pytest.raises(wire.WireError):
        wire.decode_acknowledgement(msgpack.packb({**good, **change}))


def test_fields_of_a_later_minor_profile_are_ignored() -> None:
    reading = [0, 1, 60.0, 0.0, None, None, True, None, None, "new"]
    payload = msgpack.packb({"v": 1, "boot": 3, "readings": [reading], "new": 1})
    assert wire.decode_telemetry(payload).boot == 3


@given(NAMES, NAMES, st.sampled_from(["telemetry", "command", "ack", "stored", "status"]))
def test_topics_are_split_as_they_were_made(
    organisation: str, device: str, kind: wire.Kind
) -> None:
    name = wire.topic(organisation, device, kind)
    assert wire.split_topic(name) == (organisation, device, kind)
    assert name.split("/")[3] == f"{shard_of(device):02x}"


@given(st.text(max_size=80))
def test_arbitrary_topics_raise_nothing_but_wire_errors(name: str) -> None:
    for topic in (name, f"flexway/v1/{name}", f"flexway/v1/o/00/{name}/telemetry"):
        try:
            wire.split_topic(topic)
        except wire.WireError:
            continue


@pytest.mark.parametrize("level", ["", "a/b", "+", "a#", "a\0", "x" * 129])
def test_names_that_would_change_a_topic_are_refused(level: str) -> None:
    with pytest.raises(ValueError, match="topic"):
        wire.topic("org", level, "command")
    with pytest.raises(ValueError, match="topic"):
        wire.topic(level, "dev", "command")


@pytest.mark.parametrize(
    ("organisation", "device"),
    [
        ("", "ev-1"),
        ("org", ""),
        ("o" * 129, "ev-1"),
        ("org", "e" * 129),
        ("org", "ev#"),
        ("o+", "e"),
    ],
)
def test_a_topic_that_could_not_be_answered_is_none_of_ours(organisation: str, device: str) -> None:
    shard = f"{shard_of(device):02x}"
    with pytest.raises(wire.WireError, match="names nobody"):
        wire.split_topic(f"flexway/v1/{organisation}/{shard}/{device}/telemetry")
