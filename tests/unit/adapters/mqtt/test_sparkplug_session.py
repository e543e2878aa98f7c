"""An edge node's session as its host follows it: births, gaps, deaths, doubt."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adapters.mqtt import sparkplug
from adapters.mqtt.sparkplug import Life, NodeSession, Rebirths, Sign, rebirth_request
from adapters.mqtt.sparkplug_payload import DataType, Metric, Payload, Raw
from adapters.mqtt.sparkplug_topic import Verb
from adapters.mqtt.sparkplug_wire import decode, encode
from adapters.mqtt.wire import WireError

AT = 1_486_144_502_122


def message(seq: int | None, *metrics: Metric) -> Payload:
    return Payload(timestamp_ms=AT, seq=seq, metrics=metrics)


def nbirth(seq: int = 0, bd_seq: int = 3) -> Payload:
    own = Metric(name="bdSeq", datatype=DataType.INT64, value=bd_seq)
    return message(seq, own)


def ndeath(bd_seq: int = 3) -> Payload:
    return message(None, Metric(name="bdSeq", datatype=DataType.INT64, value=bd_seq))


def dbirth(seq: int, alias: int = 7, value: int = 5) -> Payload:
    kw = Metric(name="kw", alias=alias, timestamp_ms=AT, datatype=DataType.INT8, value=value)
    return message(seq, kw)


def ddata(seq: int, alias: int = 7, value: int = 5, *, historical: bool = False) -> Payload:
    one = Metric(alias=alias, timestamp_ms=AT, historical=historical, value=Raw(10, value & 0xFF))
    return message(seq, one)


@pytest.fixture
def born() -> NodeSession:
    session = NodeSession({"bess": ["kw", "a", "b"]})
    session.take(Verb.NBIRTH, "", nbirth())
    session.take(Verb.DBIRTH, "bess", dbirth(1))
    assert (session.life("bess"), session.wants_rebirth) == (Life.BORN, "")
    return session


def test_the_table_knows_every_life_and_every_sign() -> None:
    assert set(sparkplug._TRANSITIONS) == set(itertools.product(Life, Sign))


def test_a_birth_tells_its_values_and_data_names_them_by_alias(born: NodeSession) -> None:
    heard = born.take(Verb.DDATA, "bess", ddata(2, value=-5))
    assert heard.samples == (sparkplug.Sample("kw", -5, AT, historical=False),)
    assert not heard.born
    again = born.take(Verb.DBIRTH, "bess", dbirth(3, value=9))
    assert (again.born, again.samples[0].value) == (True, 9)
    assert born.declared("bess")["kw"].datatype is DataType.INT8


def test_sequence_numbers_wrap_from_255_to_0(born: NodeSession) -> None:
    for seq in [*range(2, 256), *range(300)]:
        assert born.take(Verb.DDATA, "bess", ddata(seq % 256)).samples
    assert (born.missing, born.wants_rebirth) == (0, "")


def test_a_birth_may_begin_anywhere_between_0_and_255() -> None:
    session = NodeSession({"bess": ["kw", "a", "b"]})
    session.take(Verb.NBIRTH, "", nbirth(255))
    session.take(Verb.DBIRTH, "bess", dbirth(0))
    assert session.wants_rebirth == ""


def test_a_gap_is_counted_and_asks_for_a_rebirth(born: NodeSession) -> None:
    born.take(Verb.DDATA, "bess", ddata(5))
    assert born.missing == 3
    assert "missing" in born.wants_rebirth
    assert born.life("bess") is Life.DOUBTED
    born.take(Verb.NBIRTH, "", nbirth())
    assert born.wants_rebirth == ""
    born.take(Verb.DBIRTH, "bess", dbirth(1))
    assert born.life("bess") is Life.BORN


def test_in_doubt_only_what_is_named_counts(born: NodeSession) -> None:
    assert not born.take(Verb.DDATA, "bess", ddata(9)).samples
    named = Metric(name="kw", timestamp_ms=AT, value=Raw(10, 4))
    assert born.take(Verb.DDATA, "bess", message(10, named)).samples[0].value == 4
    assert born.doubted == 1


def test_data_before_a_birth_is_not_understood_and_asks_for_one() -> None:
    session = NodeSession({"bess": ["kw", "a", "b"]})
    assert not session.take(Verb.DDATA, "bess", ddata(4)).samples
    assert "not born" in session.wants_rebirth
    assert session.missing == 0  # nobody knows how many
    session.take(Verb.NBIRTH, "", nbirth())
    session.take(Verb.DDATA, "bess", ddata(1))
    assert "bess" in session.wants_rebirth


def test_an_unknown_alias_asks_for_a_rebirth_and_the_rest_counts(born: NodeSession) -> None:
    strange = Metric(alias=99, timestamp_ms=AT, value=Raw(10, 1))
    heard = born.take(Verb.DDATA, "bess", message(2, strange, *ddata(2).metrics))
    assert len(heard.samples) == 1
    assert "99" in heard.faults[0]
    assert "99" in born.wants_rebirth


def test_a_death_is_that_of_its_own_birth(born: NodeSession) -> None:
    assert born.take(Verb.NDEATH, "", ndeath(2)).died == ()
    assert born.life("bess") is Life.BORN
    assert set(born.take(Verb.NDEATH, "", ndeath(3)).died) == {"", "bess"}
    assert born.life("bess") is Life.ABSENT
    assert born.declared("bess") == {}
    assert born.take(Verb.NDEATH, "", ndeath(3)).died == ()


def test_a_device_dies_alone_and_comes_back(born: NodeSession) -> None:
    assert born.take(Verb.DDEATH, "bess", message(2)).died == ("bess",)
    assert born.life("bess") is Life.ABSENT
    born.take(Verb.DBIRTH, "bess", dbirth(3, alias=8))
    assert born.take(Verb.DDATA, "bess", ddata(4, alias=8)).samples
    assert born.wants_rebirth == ""


def test_other_devices_of_the_node_count_the_sequence_only(born: NodeSession) -> None:
    assert born.take(Verb.DBIRTH, "pump", dbirth(2)).samples == ()
    assert born.take(Verb.DDATA, "pump", ddata(3)).samples == ()
    assert born.take(Verb.NDATA, "", message(4, Metric(alias=1, value=Raw(10, 1)))).samples == ()
    assert born.take(Verb.DDATA, "bess", ddata(5)).samples
    assert born.wants_rebirth == ""


def test_a_node_without_devices_speaks_for_itself() -> None:
    session = NodeSession({"": ["kw", "bdSeq"]})
    own = [*nbirth().metrics, *dbirth(0).metrics]
    heard = session.take(Verb.NBIRTH, "", message(0, *own))
    assert [sample.name for sample in heard.samples] == ["bdSeq", "kw"]
    assert session.take(Verb.NDATA, "", ddata(1)).samples[0].name == "kw"
    assert session.life("") is Life.BORN


def test_what_the_broker_delivers_again_changes_nothing(born: NodeSession) -> None:
    born.take(Verb.DDATA, "bess", ddata(2))
    assert not born.take(Verb.DDATA, "bess", ddata(2), again=True).samples
    assert (born.missing, born.wants_rebirth) == (0, "")


def test_after_a_lost_link_nothing_is_sure_until_a_rebirth(born: NodeSession) -> None:
    born.unheard()
    assert born.life("bess") is Life.DOUBTED
    assert "link" in born.wants_rebirth


def test_what_has_no_sequence_number_is_refused_and_commands_are_not_ours(
    born: NodeSession,
) -> None:
    with pytest.raises(WireError, match="DDATA without seq"):
        born.take(Verb.DDATA, "bess", message(None))
    assert born.take(Verb.DCMD, "bess", message(None)) == sparkplug.Heard()


def test_a_value_of_another_type_is_a_fault_of_that_metric_alone(born: NodeSession) -> None:
    wrong = Metric(alias=7, timestamp_ms=AT, value=Raw(15, "five"))
    undated = Metric(alias=7, value=Raw(10, 1))
    heard = born.take(
        Verb.DDATA, "bess", Payload(seq=2, metrics=(wrong, undated, *ddata(2).metrics))
    )
    assert len(heard.samples) == 1
    assert "INT8" in heard.faults[0]
    assert "timestamp" in heard.faults[1]


def test_what_nobody_wants_is_neither_a_sample_nor_a_fault(born: NodeSession) -> None:
    strange = Metric(
        name="vendor", alias=50, timestamp_ms=2**64 - 1, datatype=DataType.INT8, value=Raw(15, "x")
    )
    heard = born.take(Verb.DBIRTH, "bess", message(2, strange, *dbirth(0).metrics))
    assert [sample.name for sample in heard.samples] == ["kw"]
    assert heard.faults == ()
    heard = born.take(Verb.DDATA, "bess", message(3, Metric(alias=50, value=Raw(15, "y"))))
    assert (heard.faults, born.wants_rebirth) == ((), "")


@pytest.mark.parametrize("at_ms", [sparkplug.MAX_MILLIS, 2**64 - 1])
def test_no_time_after_2100_is_believed(born: NodeSession, at_ms: int) -> None:
    late = Metric(alias=7, timestamp_ms=at_ms, value=Raw(10, 1))
    heard = born.take(Verb.DDATA, "bess", message(2, late))
    assert heard.samples == ()
    assert str(at_ms) in heard.faults[0]


def test_a_birth_without_types_does_not_ask_for_another_one(born: NodeSession) -> None:
    untyped = Metric(name="kw", alias=7, timestamp_ms=AT, value=Raw(10, 1))
    heard = born.take(Verb.DBIRTH, "bess", message(2, untyped))
    assert "without a type" in heard.faults[0]
    assert born.wants_rebirth == ""  # it would say the same again, for ever


def test_rebirths_are_asked_for_at_once_and_then_not_too_often(born: NodeSession) -> None:
    rebirths = Rebirths(10.0)
    assert not rebirths.due(born, 0.0)
    born.unheard()
    assert [rebirths.due(born, at) for at in (1.0, 2.0, 10.9, 11.0, 20.0)] == [
        True, False, False, True, False,
    ]  # fmt: skip
    born.take(Verb.NBIRTH, "", nbirth())
    assert not rebirths.due(born, 99.0)


def test_a_rebirth_is_asked_for_by_name() -> None:
    (switch,) = decode(encode(rebirth_request(AT))).metrics
    assert (switch.name, switch.alias, switch.value) == ("Node Control/Rebirth", None, True)


NOISE = st.builds(
    Payload, timestamp_ms=st.none() | st.just(AT), seq=st.none() | st.integers(0, 255),
    metrics=st.lists(st.builds(
        Metric, name=st.sampled_from([None, "kw", "bdSeq", "x"]), alias=st.integers(0, 9),
        timestamp_ms=st.none() | st.just(AT), datatype=st.none() | st.sampled_from(DataType),
        historical=st.booleans(),
        value=st.none() | st.builds(Raw, st.integers(10, 16), st.integers(0, 2**64 - 1)),
    ), max_size=4).map(tuple),
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(Verb), st.sampled_from(["", "bess", "x"]), NOISE)))
def test_no_order_of_messages_breaks_a_session(said: list[tuple[Verb, str, Payload]]) -> None:
    session = NodeSession({"bess": ["kw"], "": ["kw", "x"]})
    for verb, behind, payload in said:
        device = behind if verb.value.startswith("D") else ""
        try:
            heard = session.take(verb, device, payload)
        except WireError:
            continue
        assert not heard.samples or session.life(device) is not Life.ABSENT
    assert session.missing >= 0


@given(st.lists(st.sampled_from(["data", "rebirth", "lost", "lost rebirth"]), max_size=60))
def test_a_value_is_never_taken_for_another_metric(moves: list[str]) -> None:
    """A node that gives its aliases a new meaning at each birth, and a network that loses."""
    session, seq, meaning, unseen = NodeSession({"bess": ["kw", "a", "b"]}), 0, 1, 0
    for move in ["rebirth", *moves]:
        if "rebirth" in move:
            meaning, seq = -meaning, 0
            names = ("a", "b") if meaning > 0 else ("b", "a")
            births = [message(0, *nbirth().metrics), message(1, *(
                Metric(name=name, alias=alias, timestamp_ms=AT, datatype=DataType.INT8, value=alias)
                for alias, name in enumerate(names, start=1)
            ))]  # fmt: skip
            seq, unseen = 2, 2 if "lost" in move else 0
            for verb, birth in zip((Verb.NBIRTH, Verb.DBIRTH), births, strict=True):
                if "lost" not in move:
                    session.take(verb, "bess" if verb is Verb.DBIRTH else "", birth)
            continue
        # Alias 1 carries 1 while it means "a", and -1 while it means "b".
        data = message(seq, Metric(alias=1, timestamp_ms=AT, value=Raw(10, meaning & 0xFF)))
        seq = (seq + 1) % 256
        if move == "lost":
            unseen += 1
            continue
        # A whole new birth lost, and the count where it was before: nobody could notice.
        hidden = unseen and session._last is not None and seq == (session._last + 2) % 256
        assume(not hidden)
        for sample in session.take(Verb.DDATA, "bess", data).samples:
            assert sample.name == ("a" if sample.value == 1 else "b")
        unseen = 0 if session.life("bess") is Life.BORN else unseen
