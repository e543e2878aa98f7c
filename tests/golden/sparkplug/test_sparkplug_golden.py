"""Exact bytes of Sparkplug B payloads, made by the protobuf runtime.

The runtime of the protobuf project (7.36.2, upb) serialised them from the schema of Eclipse
Sparkplug 3.0.0, section 6.4.1; what they mean stands beside them. Two symmetric mistakes of
our reader and writer cannot hide here.
"""

from __future__ import annotations

import pytest

from adapters.mqtt.sparkplug_payload import DataType, Metric, Payload, Raw, typed
from adapters.mqtt.sparkplug_topic import State, decode_state, encode_state
from adapters.mqtt.sparkplug_wire import decode, encode

AT = 1_486_144_502_122
NBIRTH = bytes.fromhex(
    "08eaf2f5a8a02b12120a05626453657118eaf2f5a8a02b2004580712210a144e6f646520436f6e74726f"
    "6c2f5265626972746818eaf2f5a8a02b200b700012310a1850726f706572746965732f48617264776172"
    "65204d616b65100318eaf2f5a8a02b200c7a0a466c6578696f6e20cea91800"
)
DBIRTH = bytes.fromhex(
    "08eaf2f5a8a02b12150a027431100118eaf2f5a8a02b200150fbffffff0f12150a027432100218eaf2f5"
    "a8a02b200250d4fdffff0f12150a027433100318eaf2f5a8a02b20035090ddfbff0f121a0a0274341004"
    "18eaf2f5a8a02b200458809ce8afedffffffff0112120a027435100518eaf2f5a8a02b200550fa011213"
    "0a027436100618eaf2f5a8a02b200650e8fb0312150a027437100718eaf2f5a8a02b20075080d0acf30e"
    "121a0a027438100818eaf2f5a8a02b200858ffffffffffffffffff0112140a027439100918eaf2f5a8a0"
    "2b2009650000d0c012190a03743130100a18eaf2f5a8a02b200a690000000000000dc012120a03743131"
    "100b18eaf2f5a8a02b200b700112140a03743132100c18eaf2f5a8a02b200c7a026f6e12170a03743133"
    "100d18eaf2f5a8a02b200d58a2828395862b12160a03743134100e18eaf2f5a8a02b200e7a0474657874"
    "12360a03743135100f18eaf2f5a8a02b200f7a2430663866616435622d643963622d343639662d613136"
    "352d37303836373732383935306512150a03743137101118eaf2f5a8a02b201182010200ff121b0a0374"
    "3234101818eaf2f5a8a02b2018820108fffffffffaafcb121801"
)
DDATA = bytes.fromhex(
    "08eaf2f5a8a02b120e100918eaf2f5a8a02b650000d0c01214100418eaf2f5a8a02b58ffffffffffffff"
    "ffff01120e100118eaf2f5a8a02b280150fb01120b100c18eaf2f5a8a02b38011802"
)
NDEATH = bytes.fromhex("08eaf2f5a8a02b12120a05626453657118eaf2f5a8a02b20045807")
NCMD = bytes.fromhex(
    "08eaf2f5a8a02b12210a144e6f646520436f6e74726f6c2f5265626972746818eaf2f5a8a02b200b7001"
)
DCMD = bytes.fromhex("08eaf2f5a8a02b121110ac0218eaf2f5a8a02b200965000020c0")
SKIPPED = bytes.fromhex(
    "08eaf2f5a8a02b122e0a0373657418eaf2f5a8a02b20108a011d08021201611201621807180a220f0a02"
    "08010a0921000000000000044012270a0375647418eaf2f5a8a02b20139201160a02763112090a037270"
    "6d2003500422056d6f746f72124e0a026b7718eaf2f5a8a02b200a3001420912046a736f6e4201784a29"
    "0a07656e67556e69740a066e65737465641206080c42026b57120e08144a0a0a01711205080318c00169"
    "000000000000f83f18ff012203612d622a020102"
)


def metric(name: str | None = None, **fields: object) -> Metric:
    return Metric(name=name, timestamp_ms=AT, **fields)


# Section 6.4.19: seq, bdSeq as Int64 and the rebirth switch, which has no alias.
BIRTH_OF_A_NODE = Payload(timestamp_ms=AT, seq=0, metrics=(
    metric("bdSeq", datatype=DataType.INT64, value=7),
    metric("Node Control/Rebirth", datatype=DataType.BOOLEAN, value=False),
    metric("Properties/Hardware Make", alias=3, datatype=DataType.STRING, value="Flexion \u03a9"),
))  # fmt: skip
# Section 6.4.17: every type that is no structure; the array is the section's own example.
SCALARS: dict[int, object] = {
    1: -5, 2: -300, 3: -70_000, 4: -5_000_000_000, 5: 250, 6: 65_000, 7: 4_000_000_000,
    8: 2**64 - 1, 9: -6.5, 10: -3.625, 11: True, 12: "on", 13: 1_479_123_452_194, 14: "text",
    15: "0f8fad5b-d9cb-469f-a165-70867728950e", 17: b"\x00\xff",
    24: bytes.fromhex("fffffffffaafcb12"),
}  # fmt: skip
BIRTH_OF_A_DEVICE = Payload(timestamp_ms=AT, seq=1, metrics=tuple(
    metric(f"t{kind}", alias=kind, datatype=DataType(kind), value=value)
    for kind, value in SCALARS.items()
))  # fmt: skip
# Section 6.4.22: aliases only, types as they were said at birth.
DATA = Payload(timestamp_ms=AT, seq=2, metrics=(
    metric(alias=9, value=Raw(12, -6.5)),
    metric(alias=4, value=Raw(11, 2**64 - 1)),
    metric(alias=1, historical=True, value=Raw(10, 251)),
    metric(alias=12, null=True),
))  # fmt: skip
# Sections 6.4.25, 6.4.23 and 6.4.24: none of them has a seq.
DEATH = Payload(timestamp_ms=AT, metrics=BIRTH_OF_A_NODE.metrics[:1])
REBIRTH = Payload(timestamp_ms=AT, metrics=(
    metric("Node Control/Rebirth", datatype=DataType.BOOLEAN, value=True),
))  # fmt: skip
COMMAND = Payload(
    timestamp_ms=AT, metrics=(metric(alias=300, datatype=DataType.FLOAT, value=-2.5),)
)
VECTORS = [
    (NBIRTH, BIRTH_OF_A_NODE), (DBIRTH, BIRTH_OF_A_DEVICE), (DDATA, DATA), (NDEATH, DEATH),
    (NCMD, REBIRTH), (DCMD, COMMAND),
]  # fmt: skip


@pytest.mark.parametrize(("data", "meaning"), VECTORS)
def test_the_bytes_of_the_runtime_are_read_and_written(data: bytes, meaning: Payload) -> None:
    assert decode(data) == meaning
    assert encode(meaning) == data


def test_what_has_no_type_gets_it_from_the_birth() -> None:
    by_alias = {metric.alias: metric.value for metric in decode(DDATA).metrics}
    assert typed(by_alias[9], DataType.FLOAT) == -6.5
    assert typed(by_alias[4], DataType.INT64) == -1
    assert typed(by_alias[1], DataType.INT8) == -5  # its own eight bits only


def test_structures_are_passed_over_and_what_stands_beside_them_is_read() -> None:
    """Sections 6.4.7 to 6.4.15: metadata, nested property sets, a data set, a template."""
    data_set, template, power = decode(SKIPPED).metrics
    assert (data_set.name, data_set.datatype, data_set.value) == ("set", DataType.DATASET, None)
    assert (template.name, template.datatype, template.value) == ("udt", DataType.TEMPLATE, None)
    assert (power.name, power.value) == ("kw", 1.5)
    assert decode(SKIPPED).seq == 255


def test_a_host_says_that_it_is_there() -> None:
    """Section 6.4.27: JSON with two keys."""
    data = b'{"online":true,"timestamp":1486144502122}'
    assert encode_state(State(online=True, timestamp=AT)) == data
    assert decode_state(data) == State(online=True, timestamp=AT)
