"""The Sparkplug codec alone: what goes in comes out, and nothing but WireError goes wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mqtt import sparkplug_payload as types
from adapters.mqtt import sparkplug_wire as sparkplug
from adapters.mqtt.sparkplug_payload import DataType, Metric, Payload, Raw, typed
from adapters.mqtt.sparkplug_topic import Topic, Verb, decode_state, parse
from adapters.mqtt.sparkplug_wire import decode, encode
from adapters.mqtt.wire import MAX_PAYLOAD, WireError
from tests.golden.sparkplug import test_sparkplug_golden as golden

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
UINT64 = st.integers(0, 2**64 - 1)
MILLIS = UINT64


def of_type(kind: DataType) -> st.SearchStrategy[object]:
    if kind in types.INTEGERS:
        bits = types.INTEGERS[kind]
        signed = kind.name.startswith("INT")
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        return st.integers(low, high)
    if kind in types.FLOATS:
        return st.floats(width=32 if kind is DataType.FLOAT else 64, allow_nan=False)
    if kind is DataType.BOOLEAN:
        return st.booleans()
    if kind in {DataType.STRING, DataType.TEXT, DataType.UUID}:
        return TEXT
    return st.binary(max_size=60)


SCALAR = [kind for kind in DataType if kind not in {0, 16, 19, 20, 21}]


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    kind = draw(st.sampled_from(SCALAR))
    null, value = draw(st.booleans()), draw(of_type(kind))
    says_type = draw(st.booleans())
    if not says_type:
        value = types.as_raw(value, kind)
    return Metric(
        name=draw(st.none() | TEXT), alias=draw(st.none() | UINT64),
        timestamp_ms=draw(st.none() | MILLIS), datatype=kind if says_type else None,
        historical=draw(st.booleans()), null=null, value=None if null else value,
    )  # fmt: skip


PAYLOADS = st.builds(
    Payload, timestamp_ms=st.none() | MILLIS, seq=st.none() | st.integers(0, 255),
    metrics=st.lists(metrics(), max_size=8).map(tuple),
)  # fmt: skip


@given(PAYLOADS)
def test_what_is_written_is_read(payload: Payload) -> None:
    assert decode(encode(payload)) == payload


@given(st.sampled_from(SCALAR).flatmap(lambda kind: st.tuples(st.just(kind), of_type(kind))))
def test_a_type_said_at_birth_gives_the_value_back(of: tuple[DataType, object]) -> None:
    kind, value = of
    raw = decode(encode(Payload(metrics=(Metric(value=types.as_raw(value, kind)),))))
    assert typed(raw.metrics[0].value, kind) == value


@given(st.binary(max_size=300))
def test_noise_is_read_or_refused(data: bytes) -> None:
    read_or_refuse(data)


@given(st.sampled_from(golden.VECTORS), st.data())
def test_damaged_messages_are_read_or_refused(
    vector: tuple[bytes, Payload], data: st.DataObject
) -> None:
    damaged = bytearray(vector[0])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    read_or_refuse(bytes(damaged))
    read_or_refuse(bytes(damaged[:cut]))


def read_or_refuse(data: bytes) -> None:
    try:
        payload = decode(data)
    except WireError as error:
        refused = error.evidence
    else:
        take_apart(payload)
        return
    assert refused == data


def take_apart(payload: Payload) -> None:
    for metric in payload.metrics:
        if isinstance(metric.value, Raw):
            for kind in SCALAR:
                typed_or_refused(metric.value, kind)
    # Whatever was understood can be said again.
    assert len(decode(encode(payload)).metrics) == len(payload.metrics)


def typed_or_refused(raw: Raw, kind: DataType) -> None:
    try:
        value = typed(raw, kind)
    except WireError:
        return
    assert types.as_raw(value, kind).value is not None


def test_every_limit_refuses_and_says_so() -> None:
    nameless = b"\x12\x00"
    long = Metric(name="n" * (sparkplug.MAX_NAME + 1))
    cases = {
        "bytes in one message": nameless * (MAX_PAYLOAD // 2) + b"\x12\x00",
        "metrics": nameless * (sparkplug.MAX_METRICS + 1),
        "a name of": encode(Payload(metrics=(long,))),
        "seq 256": encode(Payload(seq=256)),
        "does not end": b"\x08" + b"\xff" * 11,
        "cut short": b"\x12\x05\x0a",
        "wire type 3": b"\x13",
        "has wire type": b"\x0a\x00",
        "field number 0": b"\x00\x00",
        "field number 536870912": b"\x80\x80\x80\x80\x10\x00",
        "invalid start byte": b"\x12\x03\x0a\x01\xff",
    }
    for reason, data in cases.items():
        with pytest.raises(WireError, match=reason):
            decode(data)
    assert len(decode(nameless * sparkplug.MAX_METRICS).metrics) == sparkplug.MAX_METRICS


def test_one_metric_that_is_amiss_does_not_spoil_the_others() -> None:
    later_type = b"\x12\x04\x20\x63\x50\x01"
    wrong_field = b"\x12\x04\x20\x04\x50\x01"
    sound = encode(Payload(metrics=(Metric(name="kw", datatype=DataType.DOUBLE, value=1.5),)))
    read = decode(later_type + wrong_field + sound).metrics
    assert [metric.datatype for metric in read] == [None, DataType.INT64, DataType.DOUBLE]
    assert [metric.value for metric in read] == [Raw(10, 1), Raw(10, 1), 1.5]


def test_nesting_costs_nothing_and_breaks_nothing() -> None:
    inner = b""
    while len(inner) < 60_000:
        inner = b"\x12" + sparkplug._encoded(len(inner)) + inner
    template = b"\x92\x01" + sparkplug._encoded(len(inner)) + inner
    data = b"\x12" + sparkplug._encoded(len(template)) + template
    assert decode(data).metrics == (Metric(),)


@pytest.mark.parametrize(
    ("raw", "kind", "value"),
    [
        (Raw(10, 0xFF), DataType.INT8, -1),
        (Raw(10, 0xFFFFFFFF), DataType.INT8, -1),
        (Raw(10, 0x7F), DataType.INT8, 127),
        (Raw(10, 0xFFFF), DataType.INT16, -1),
        (Raw(11, 5), DataType.UINT32, 5),
        (Raw(13, 1.5), DataType.FLOAT, 1.5),
    ],
)
def test_both_ways_of_writing_a_narrow_number_are_understood(
    raw: Raw, kind: DataType, value: object
) -> None:
    assert typed(raw, kind) == value


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (Raw(10, 0x1FF), DataType.INT8), (Raw(10, 256), DataType.UINT8),
        (Raw(10, 1), DataType.DOUBLE), (Raw(15, "1"), DataType.INT32),
        (Raw(14, True), DataType.UINT8), (Raw(10, 1), DataType.BOOLEAN),
        (Raw(10, 1), DataType.DATASET), (Raw(10, 1), DataType.INT64),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(raw: Raw, kind: DataType) -> None:
    with pytest.raises(WireError):
        typed(raw, kind)


@pytest.mark.parametrize("value", [128, -129])
def test_what_does_not_fit_is_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="INT8"):
        types.as_raw(value, DataType.INT8)
    with pytest.raises(ValueError, match="too large"):
        encode(Payload(metrics=(Metric(datatype=DataType.FLOAT, value=1e300),)))


@pytest.mark.parametrize(
    "topic", [Topic("plant", Verb.NBIRTH, "node"), Topic("plant 1", Verb.DCMD, "node", "bess")]
)
def test_topics_are_read_as_they_are_written(topic: Topic) -> None:
    assert parse(str(topic)) == topic


@pytest.mark.parametrize(
    "name",
    ["", "spBv1.0", "spBv1.0/STATE/host", "spAv1.0/g/NBIRTH/n", "spBv1.0/g/NBIRTH/n/d",
     "spBv1.0/g/DBIRTH/n", "spBv1.0//NDATA/n", "spBv1.0/g/NOISE/n", "spBv1.0/g/NDATA/n+",
     "spBv1.0/g/DDATA/n/d/e"],
)  # fmt: skip
def test_other_topics_are_refused(name: str) -> None:
    with pytest.raises(WireError):
        parse(name)


@given(st.binary(max_size=80), st.text(max_size=40))
def test_noise_is_no_topic_and_no_state(data: bytes, name: str) -> None:
    calls: list[Callable[[], object]] = [lambda: decode_state(data), lambda: parse(name)]
    for call in calls:
        with pytest.raises(WireError):
            call()


@pytest.mark.parametrize("data", [b'{"a":' + b"[" * 4_000, b'{"a":"' + b"x" * 5_000 + b'"}'])
def test_a_state_that_nests_deep_or_goes_on_and_on_is_malformed(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_state(data)
