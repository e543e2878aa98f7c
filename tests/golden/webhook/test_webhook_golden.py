"""Exact bytes of the webhook, version 1: two symmetric mistakes cannot hide here.

The bodies were written by hand from docs/webhooks.md; the signatures come from
`openssl dgst -sha256 -hmac SECRET` over `TIMESTAMP.BODY`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from adapters.webhook import wire
from adapters.webhook.signature import Verdict, sign, verify

START = datetime(2026, 7, 20, 16, 0, tzinfo=UTC)
END = START + timedelta(hours=1)

DISPATCH = (
    b'{"type":"dispatch","id":"spt_1","order_id":"ord_1","revision":2,"device_id":"agg-1",'
    b'"issued_at":"2026-07-20T15:55:00.000250Z",'
    b'"start_time":"2026-07-20T16:00:00Z","end_time":"2026-07-20T17:00:00Z",'
    b'"cancelled":false,"priority":0,"is_voluntary":false,"event_type":"standard",'
    b'"energy_kw":75.5,"nomination_kw":null,"power_kw":25.5,"direction":"UP","share":0.5,'
    b'"valid_from":"2026-07-20T16:00:00Z","valid_until":"2026-07-20T17:00:00Z",'
    b'"lease_s":3600.0,"version":1}'
)
MAXIMUM = DISPATCH.replace(b'"energy_kw":75.5', b'"energy_kw":null').replace(
    b'"share":0.5', b'"share":1.0'
)
CANCELLATION = (
    b'{"type":"dispatch","id":"cxl_spt_1","order_id":"ord_1","revision":2,"device_id":"agg-1",'
    b'"issued_at":"2026-07-20T16:00:00Z",'
    b'"start_time":"2026-07-20T16:00:00Z","end_time":"2026-07-20T17:00:00Z",'
    b'"cancelled":true,"priority":0,"is_voluntary":false,"event_type":"standard",'
    b'"nomination_kw":null,"power_kw":null,'
    b'"valid_from":"2026-07-20T16:00:00Z","valid_until":"2026-07-20T17:00:00Z",'
    b'"lease_s":0.0,"version":1}'
)
PING = b'{"type":"ping","id":"png_1","issued_at":"2026-07-20T16:00:00Z","version":1}'
NOTIFICATION = (
    b'{"type":"notification","id":"evt_1_2","event":"order.planned",'
    b'"issued_at":"2026-07-20T16:00:00Z","data":{"a":[1.5],"z":1},"version":1}'
)


def asked(**changes: object) -> wire.Dispatch:
    fields: dict[str, object] = {
        "id": "spt_1", "order_id": "ord_1", "revision": 2, "device_id": "agg-1",
        "issued_at": datetime(2026, 7, 20, 15, 55, 0, 250, tzinfo=UTC), "start_time": START,
        "end_time": END, "energy_kw": 75.5, "power_kw": 25.5, "direction": "UP", "share": 0.5,
        "valid_from": START, "valid_until": END, "lease_s": 3600.0,
    }  # fmt: skip
    return wire.Dispatch(**{**fields, **changes})  # type: ignore[arg-type]


CANCELLED = wire.Dispatch(
    id="cxl_spt_1", order_id="ord_1", revision=2, device_id="agg-1", issued_at=START,
    start_time=START, end_time=END, cancelled=True, valid_from=START, valid_until=END, lease_s=0.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (DISPATCH, asked()),
        (MAXIMUM, asked(energy_kw=None, share=1.0)),
        (CANCELLATION, CANCELLED),
        (PING, wire.Ping(id="png_1", issued_at=START)),
        (
            NOTIFICATION,
            wire.Notification(
                id="evt_1_2", event="order.planned", issued_at=START, data={"z": 1, "a": [1.5]}
            ),
        ),
    ],
    ids=["dispatch", "maximum", "cancellation", "ping", "notification"],
)
def test_the_bytes_of_a_message_are_these(body: bytes, message: wire.Message) -> None:
    assert wire.encode(message) == body
    assert wire.decode(body) == message


def test_the_bytes_of_answers_are_these() -> None:
    refused = wire.Answer(status="refused", reason="no")
    assert wire.encode(refused) == b'{"status":"refused","reason":"no"}'
    body = b'{"active":true,"setpoint_id":"spt_1","power_kw":25.5}'
    assert wire.decode_status(body) == wire.Status(active=True, setpoint_id="spt_1", power_kw=25.5)
    assert wire.encode(wire.decode_status(body)) == body


FIRST = "6c2bca537d7131fee185197b8ab45eb53d5bab194be78b6639c74bfc3c9889b2"
SECOND = "1c7297da3e5555c5e47984e17d8c399b73c5b29267c21fb0b6751c5bec2d088b"
OF_PATH = "89ae9f68faf8952380000a0550b4eea29a56d57ff9714acb1d43ba12acb56fac"


def test_the_signature_is_the_one_that_openssl_computes() -> None:
    assert sign(PING, ["fxw_first"], 1784563200) == f"t=1784563200,v1={FIRST}"
    both = f"t=1784563200,v1={FIRST},v1={SECOND}"
    assert sign(PING, ["fxw_first", "fxw_second"], 1784563200) == both
    for secret in ("fxw_first", "fxw_second"):
        assert verify(both, PING, [secret], now=1784563200.0) is Verdict.GENUINE
    assert sign(b"/orders/ord_1?x=1", ["fxw_first"], 1784563200).endswith(OF_PATH)
