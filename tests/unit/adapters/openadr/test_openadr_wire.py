from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from openleadr.messaging import create_message, parse_message

from adapters.openadr import mapping
from adapters.openadr.wire import Answer, MessageRefusedError, answers, fingerprint, read_message
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.simtime import AffineTime, identity
from marketplace_core.units import Kw

GOLDEN = Path(__file__).parents[3] / "golden" / "openadr"
START = datetime(2018, 7, 10, 20, 0, tzinfo=UTC)
LATER = START + timedelta(hours=1)
POLL = (GOLDEN / "poll.xml").read_text()
DOCTYPE = '<!DOCTYPE oadrPayload [<!ENTITY e "PLACE">]>'


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.xml").read_bytes()


def attack(text: str, encoding: str) -> bytes:
    return text.replace("UTF-8", encoding).encode(encoding)


def shape(element: Any) -> Any:
    text = (element.text or "").strip()
    return element.tag, text, dict(element.attrib), [shape(child) for child in element]


def setpoint(power_kw: float = -80.0, hours: float = 1.0) -> Setpoint:
    return Setpoint(
        id="sp_1",
        order_id="ord_1",
        revision=0,
        device_id="dev_site",
        power_kw=Kw(power_kw),
        valid_from=START,
        valid_until=START + timedelta(hours=hours),
        lease_s=3600.0,
    )


def test_a_good_message_is_read() -> None:
    message = read_message(golden("poll"))
    assert (message.kind, message.ven_id, message.ven_name) == ("oadrPoll", "PLACE-OF-VEN-ID", None)
    assert read_message(b"\xef\xbb\xbf" + golden("poll")).kind == "oadrPoll"
    assert read_message(POLL.replace("UTF-8", "us-ascii").encode()).kind == "oadrPoll"


@pytest.mark.parametrize(
    "dtd",
    [
        DOCTYPE,
        "<!DOCTYPE oadrPayload>",
        '<!DOCTYPE oadrPayload SYSTEM "file:///etc/passwd">',
        '<!doctype oadrPayload SYSTEM "http://127.0.0.1/">',
        "<!\nDOCTYPE x>",
        '<!ENTITY e "x">',
    ],
)
def test_a_document_type_is_refused(dtd: str) -> None:
    body = POLL.replace("?>\n", f"?>\n{dtd}", 1).replace("PLACE-OF-VEN-ID", "&e;")
    with pytest.raises(MessageRefusedError) as caught:
        read_message(body.encode())
    assert caught.value.rule == "dtd"


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "cp037"]
)
def test_a_document_type_cannot_hide_in_another_encoding(encoding: str) -> None:
    body = attack(POLL.replace("?>\n", f"?>\n{DOCTYPE}", 1), encoding)
    with pytest.raises(MessageRefusedError) as caught:
        read_message(body)
    assert caught.value.rule == "encoding"


@pytest.mark.parametrize("encoding", ["utf-7", "ISO-8859-1", "UTF-16", "x-unknown"])
def test_only_utf_8_may_be_declared(encoding: str) -> None:
    with pytest.raises(MessageRefusedError) as caught:
        read_message(POLL.replace("UTF-8", encoding).encode("ascii"))
    assert caught.value.rule == "encoding"
    with pytest.raises(MessageRefusedError):
        read_message(POLL.replace('"UTF-8"', f"'{encoding}'").encode("ascii"))


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "xml"),
        (b"<", "xml"),
        (b"not xml", "xml"),
        (b"<a>" * 400 + b"</a>" * 400, "schema"),
        (b"<oadrPayload>" * 400 + b"</oadrPayload>" * 400, "xml"),
        (golden("poll").replace(b"<oadrPayload ", b"<?target data?><oadrPayload "), "xml"),
        (b"<a/>", "schema"),
        (golden("poll").replace(b"oadrPoll", b"oadrPull"), "schema"),
        (golden("poll").replace(b"<ei:venID>PLACE-OF-VEN-ID</ei:venID>", b""), "schema"),
        (golden("poll").replace(b"PLACE", b"&undefined;"), "xml"),
        (b"x" * 600_000, "size"),
        (b"\xff\xfe", "encoding"),
        (b"<a>\x00</a>", "encoding"),
    ],
)
def test_what_is_not_a_message_is_refused(body: bytes, rule: str) -> None:
    with pytest.raises(MessageRefusedError) as caught:
        read_message(body)
    assert caught.value.rule == rule


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    with pytest.raises(MessageRefusedError):
        read_message(body)


@given(st.data())
def test_a_damaged_message_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(golden(data.draw(st.sampled_from(["update_report", "created_event"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = read_message(bytes(body))
    except MessageRefusedError:
        return
    answers(message)
    points = {"dev_site": point(1.0)}
    mapping.readings(message, points, series="s", telemetry_s=60.0, time_map=identity(), now=LATER)


def point(kw_per_unit: float) -> mapping.ReportPoint:
    return mapping.ReportPoint(
        r_id="dev_site",
        specifier_id="spec1",
        resource_id="dev_site",
        kw_per_unit=kw_per_unit,
        reading_type="Mean",
        min_period_s=0.0,
    )


def test_an_event_says_what_the_profile_specification_wants() -> None:
    document = mapping.event_document(
        setpoint(),
        ven_id="ven-test",
        modification=2,
        created=START - timedelta(minutes=5),
        cancelled=False,
        market_context="urn:flexway:dispatch",
        time_map=identity(),
        now=START,
    )
    text = create_message(
        "oadrDistributeEvent", vtn_id="vtn-test", request_id="req", events=[document]
    )
    read_message(text.encode())
    assert shape(etree.fromstring(text.encode())) == shape(
        etree.fromstring(golden("distribute_event"))
    )
    kind, payload = parse_message(golden("distribute_event"))
    assert kind == "oadrDistributeEvent"
    assert payload["events"][0]["event_signals"][0]["intervals"][0]["signal_payload"] == 80.0


def test_opts_are_read_with_their_modification_and_code() -> None:
    assert answers(read_message(golden("created_event"))) == [
        Answer("e1", 0, True, "200"),
        Answer("e2", 3, False, "200"),
        Answer("e3", 1, True, "460"),
    ]


def test_only_power_is_asked_for_in_its_own_scale() -> None:
    points = mapping.report_points(read_message(golden("register_report")))
    assert [(p.r_id, p.resource_id, p.kw_per_unit) for p in points] == [
        ("hall", "hall", 0.001),
        ("p1", "dev_site", 1.0),
    ]
    assert [p.min_period_s for p in points] == [10.0, 60.0]


def test_consumption_on_the_wire_is_negative_inside() -> None:
    message = read_message(golden("update_report"))
    good, bad = mapping.readings(
        message,
        {"dev_site": point(0.001)},
        series="dev_site",
        telemetry_s=300.0,
        time_map=identity(),
        now=LATER,
    )
    assert [(r.start, r.seconds, r.power_kw) for r in good] == [
        (START, 60.0, -0.0125),
        (START + timedelta(seconds=60.5), 300.0, 0.003),
    ]
    assert len(bad) == 5


def test_wall_time_becomes_market_time_to_the_millisecond() -> None:
    fast = AffineTime(START, START, 180.0)
    good, _ = mapping.readings(
        read_message(golden("update_report")),
        {"dev_site": point(1.0)},
        series="dev_site",
        telemetry_s=60.0,
        time_map=fast,
        now=LATER,
    )
    assert [(r.start, r.seconds) for r in good] == [
        (START, 180.0 * 60.0),
        (START + timedelta(seconds=60.5) * 180, 60.0),
    ]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "2018-07-10T20:00:00Z</xcal:date-time></xcal:dtstart>\n            <xcal:dur",
            None,
            "ends in",
        ),
        ("PT1M", "P2D", "more than a day"),
        ("PT1M", f"P{'9' * 20}D", "duration"),
        ("PT1M", f"P{'9' * 5000}D", "digits"),
        ("12.5", "1" * 5000, "no power"),
        ("12.5", "1e999", "no power"),
    ],
)
def test_what_would_break_later_arithmetic_is_put_aside(
    old: str, new: str | None, reason: str
) -> None:
    text = golden("update_report").decode()
    replaced = old.replace("2018", "9999") if new is None else new
    assert old in text
    for time_map in (identity(), AffineTime(START, START, 180.0)):
        good, bad = mapping.readings(
            read_message(text.replace(old, replaced, 1).encode()),
            {"dev_site": point(1.0)},
            series="dev_site",
            telemetry_s=60.0,
            time_map=time_map,
            now=LATER,
        )
        assert len(good) == 1
        assert reason in bad[0].reason
        assert len(bad[0].reason) <= 200


@given(st.floats(0.02, 24.0), st.floats(1.0, 600.0))
def test_an_event_ends_when_its_setpoint_ends(hours: float, speed: float) -> None:
    one, time_map = setpoint(hours=hours), AffineTime(START, START, speed)
    start, duration = mapping.wall_period(one, time_map)
    assert start + duration == time_map.to_wall(one.valid_until)
    assert duration % timedelta(seconds=1) == timedelta(0)
    assert duration >= timedelta(seconds=1)
    exact = time_map.to_wall(one.valid_until) - time_map.to_wall(one.valid_from)
    assert abs(duration - exact) <= timedelta(seconds=0.5) or duration == timedelta(seconds=1)


def test_the_event_of_an_order_and_a_device_has_one_id() -> None:
    assert mapping.event_id("ord_1", "dev_site") == "evt-53982a45dec82be8550ce83f15222e4c"
    assert mapping.event_id("ord_1", "dev_2") != mapping.event_id("ord_1dev_", "2")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT1M", 60), ("P1DT2H3M4S", 93784), ("P1W", 604800), ("1W", 604800), ("P", 0), (None, 0)],
)
def test_durations(text: str | None, seconds: int) -> None:
    assert mapping.parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["P1Y", "P1M1D", "-PT1M", "PT0.5S", f"P{'9' * 30}D", ""])
def test_durations_that_are_not_determinate(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        mapping.parse_duration(text)


def test_the_fingerprint_is_the_end_of_the_sha256() -> None:
    # SHA-256("abc") ends in 7a9c b410ff61 f20015ad: FIPS 180-2 appendix B.1
    assert fingerprint(b"abc") == "7A:9C:B4:10:FF:61:F2:00:15:AD"
