from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.webhook.mapping import cancellation, delivery_id, dispatch
from adapters.webhook.signature import TOLERANCE_S, Verdict, sign, verify
from adapters.webhook.wire import (
    MAX_BODY_BYTES,
    Accepted,
    Declined,
    EventType,
    Unclear,
    WireError,
    decode,
    decode_status,
    encode,
    read_reply,
)
from marketplace_core.simtime import AffineTime
from marketplace_core.units import Kw
from tests.golden.webhook import test_webhook_golden as golden
from tests.harness.clocks import IdentityTime
from tests.harness.webhook import device, setpoint

BODY = b'{"type":"ping"}'
NOW = 1_784_563_200


def test_a_changed_body_is_caught() -> None:
    header = sign(BODY, ["s"], NOW)
    for place in range(len(BODY)):
        changed = BODY[:place] + bytes([BODY[place] ^ 1]) + BODY[place + 1 :]
        assert verify(header, changed, ["s"], now=NOW) is Verdict.FOREIGN


def test_a_moved_time_is_caught() -> None:
    header = sign(BODY, ["s"], NOW).replace(str(NOW), str(NOW + 1))
    assert verify(header, BODY, ["s"], now=NOW) is Verdict.FOREIGN


@pytest.mark.parametrize(
    ("skew", "verdict"),
    [
        (0, Verdict.GENUINE), (TOLERANCE_S, Verdict.GENUINE), (-TOLERANCE_S, Verdict.GENUINE),
        (TOLERANCE_S + 1, Verdict.STALE), (-TOLERANCE_S - 1, Verdict.STALE),
    ],
)  # fmt: skip
def test_a_replayed_signature_and_a_clock_that_is_off_are_told_apart_from_a_forged_one(
    skew: float, verdict: Verdict
) -> None:
    header = sign(BODY, ["s"], NOW)
    assert verify(header, BODY, ["s"], now=NOW + skew) is verdict
    assert verify(header, BODY, ["other"], now=NOW + skew) is Verdict.FOREIGN


def test_while_a_secret_is_rotated_either_side_may_be_ahead() -> None:
    both = sign(BODY, ["new", "old"], NOW)
    for known in (["old"], ["new"], ["old", "new"]):
        assert verify(both, BODY, known, now=NOW) is Verdict.GENUINE
    assert verify(sign(BODY, ["old"], NOW), BODY, ["new", "old"], now=NOW) is Verdict.GENUINE
    assert verify(both, BODY, ["neither"], now=NOW) is Verdict.FOREIGN


@pytest.mark.parametrize(
    "header",
    [
        "", "t=1", "v1=" + "0" * 64, "t=x,v1=" + "0" * 64, "t=1,t=1,v1=" + "0" * 64,
        "t=1,v1=zz", "t=1,v0=" + "0" * 64, "t=-1,v1=" + "0" * 64, "t=1" * 100_000,
        "t=\u0661,v1=" + "0" * 64, "t=1,v1=" + "0" * 63,
    ],
)  # fmt: skip
def test_a_header_of_another_form_is_malformed(header: str) -> None:
    assert verify(header, BODY, ["s"], now=1) is Verdict.MALFORMED


@given(st.text(), st.binary(max_size=64))
def test_no_header_and_no_body_make_the_check_fail_otherwise(header: str, body: bytes) -> None:
    assert verify(header, body, ["s"], now=0) is not Verdict.GENUINE


@given(st.binary(max_size=256))
def test_bytes_that_are_no_message_are_a_wire_error(body: bytes) -> None:
    for parse in (decode, decode_status):
        try:
            parse(body)
        except WireError:
            continue
        assert json.loads(body)


def message(**changes: object) -> bytes:
    body = json.loads(
        encode(dispatch(setpoint(), device().profile, issued_at=datetime.now(UTC),
                        time_map=IdentityTime()))
    )  # fmt: skip
    return json.dumps({**body, **changes}).encode()


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (message(version=2), "version 2 is not 1"),
        (message(power_kw=None), "power_kw"),
        (message(cancelled=True), "power_kw"),
        (message(type="command"), "command"),
        (message(event_type="weekly"), "event_type"),
        (message(valid_until="soon"), "valid_until"),
        (b" " * (MAX_BODY_BYTES + 1), "longer than"),
        (message()[:-1] + b',"x":' + b"[" * 60_000, "recursion"),
        (b"[" * 60_000, "Expected `object`"),
    ],
)
def test_a_message_that_is_wrong_says_where(body: bytes, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        decode(body)


def test_a_field_that_a_receiver_does_not_know_is_left_aside() -> None:
    body = message()
    assert decode(body[:-1] + b', "colour": {"red": 1}}') == decode(body)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b'{"status":"accepted"}', Accepted), (204, b"", Accepted), (202, b"  ", Accepted),
        (200, b'{"status":"refused","reason":"full"}', Declined), (200, b"OK", Unclear),
        (200, b'{"status":"maybe"}', Unclear), (200, b"x" * (MAX_BODY_BYTES + 1), Unclear),
        (301, b"", Declined), (307, b"", Declined), (400, b"", Declined), (401, b"", Declined),
        (404, b"", Declined), (409, b"", Declined), (410, b"", Declined), (422, b"no", Declined),
        (408, b"", Unclear), (425, b"", Unclear), (429, b"", Unclear), (500, b"", Unclear),
        (503, b'{"status":"accepted"}', Unclear), (101, b"", Unclear), (600, b"", Unclear),
    ],
)  # fmt: skip
def test_an_answer_means_this(status: int, body: bytes, kind: type) -> None:
    assert type(read_reply(status, body)) is kind


def test_a_refusal_carries_reason_and_evidence_that_cannot_break_a_log_line() -> None:
    reply = read_reply(409, b'{"status":"refused","reason":"full"}')
    assert reply == Declined("full", 'HTTP 409: {"status":"refused","reason":"full"}')
    shown = read_reply(422, b"a\r\nb\x1b[31m" + b"c" * 1_000)
    assert isinstance(shown, Declined)
    assert shown.evidence.isprintable()
    assert len(shown.evidence) < 220
    assert read_reply(302, b"") == Declined(
        "the endpoint redirects: register the address that it redirects to", "HTTP 302: "
    )


@pytest.mark.parametrize(
    ("power_kw", "direction", "energy_kw", "share"),
    [
        (25.0, "UP", 75.0, 0.5), (100.0, "UP", None, 1.0), (-225.0, "DOWN", 175.0, 0.5),
        (-400.0, "DOWN", None, 1.0), (-50.0, None, 0.0, None),
    ],
)  # fmt: skip
def test_the_change_is_told_from_the_fallback(
    power_kw: float, direction: str | None, energy_kw: float | None, share: float | None
) -> None:
    asked = dispatch(
        setpoint(power_kw=Kw(power_kw)), device().profile, issued_at=datetime.now(UTC),
        time_map=IdentityTime(),
    )  # fmt: skip
    body = json.loads(encode(asked))
    assert (body["power_kw"], body["energy_kw"]) == (power_kw, energy_kw)
    assert (body.get("direction"), body.get("share")) == (direction, share)


def test_instants_on_the_wire_are_wall_time() -> None:
    epoch = datetime(2017, 7, 20, tzinfo=UTC)
    wall = datetime(2026, 1, 1, tzinfo=UTC)
    one = setpoint(valid_from=epoch + timedelta(hours=1), valid_until=epoch + timedelta(hours=2))
    told = dispatch(one, device().profile, issued_at=wall, time_map=AffineTime(epoch, wall, 60.0))
    assert told.valid_from == wall + timedelta(minutes=1)
    assert told.end_time == wall + timedelta(minutes=2)
    assert told.lease_s == 60.0


@pytest.mark.parametrize(
    ("hours", "kind"),
    [(24, EventType.DAY_AHEAD), (2, EventType.HOUR_AHEAD), (0.1, EventType.STANDARD)],
)
def test_the_event_type_tells_the_notice(hours: float, kind: EventType) -> None:
    issued = datetime.now(UTC)
    one = setpoint(
        valid_from=issued + timedelta(hours=hours), valid_until=issued + timedelta(hours=30)
    )
    told = dispatch(one, device().profile, issued_at=issued, time_map=IdentityTime())
    assert told.event_type is kind


def test_a_cancellation_has_an_id_of_its_own_and_stands_above_what_it_withdraws() -> None:
    issued = datetime.now(UTC)
    one = setpoint()
    told = dispatch(one, device().profile, issued_at=issued, time_map=IdentityTime())
    undone = cancellation(
        one, revision=0, issued_at=issued + timedelta(seconds=1), end=one.valid_until
    )
    assert undone.id != told.id
    assert undone.order > told.order
    assert delivery_id("whk_1", told.id) != delivery_id("whk_2", told.id)


@pytest.mark.parametrize(
    "field", ["issued_at", "start_time", "end_time", "valid_from", "valid_until"]
)
def test_a_time_without_an_offset_says_no_instant(field: str) -> None:
    dispatch = encode(golden.asked())
    naive = re.sub(rb'("%b":"[^"]*)Z"' % field.encode(), rb'\1"', dispatch)
    assert naive != dispatch
    with pytest.raises(WireError, match=field):
        decode(naive)
