"""The webhook: messages, answers, and the signature's header."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from adapters.webhook import wire
from adapters.webhook.signature import Verdict, sign, verify
from adapters.webhook.wire import WireError
from tests.fuzz.corpus import load
from tests.fuzz.judge import Target
from tests.golden.webhook import test_webhook_golden as golden

START = datetime(2026, 7, 20, 16, 0, tzinfo=UTC)
STATUSES = (200, 204, 302, 400, 409, 429, 500)
SECRETS = ("whsec_first", "whsec_second")


def message(frame: bytes) -> bool:
    """As a message, as a status, as an answer to each kind of HTTP status, as a signature."""
    for status in STATUSES:
        wire.read_reply(status, frame)
    verdict = verify(frame.decode("latin-1"), frame, SECRETS, now=1_784_563_200.0)
    assert verdict is not Verdict.GENUINE
    understood = 0
    for decode in (wire.decode, wire.decode_status):
        try:
            found = decode(frame)
        except WireError:
            continue
        understood += 1
        assert decode(wire.encode(found)) == found
        if isinstance(found, wire.Dispatch):
            assert found.order < (found.revision + 1, START)
            assert (found.valid_until > START) in {True, False}
    return understood > 0


def some_message(rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    at = START + timedelta(microseconds=rng.getrandbits(40))
    if kind == 0:
        return wire.encode(wire.Ping(id=f"png_{rng.getrandbits(20)}", issued_at=at))
    if kind == 1:
        data = {"order": "ord_1", "power": [rng.random(), None, True], "é": {"a": "b"}}
        return wire.encode(
            wire.Notification(id="evt_1", event="order.planned", issued_at=at, data=data)
        )
    if kind == 2:
        return wire.encode(wire.Status(active=rng.random() < 0.5, power_kw=rng.gauss(0, 100)))
    cancelled = rng.random() < 0.2
    return wire.encode(
        wire.Dispatch(
            id=f"spt_{rng.getrandbits(20)}",
            order_id="ord_1",
            revision=rng.randrange(9),
            device_id="agg-1",
            issued_at=at,
            start_time=at,
            end_time=at + timedelta(hours=1),
            cancelled=cancelled,
            event_type=rng.choice(list(wire.EventType)),
            energy_kw=rng.choice((None, rng.random())),
            power_kw=None if cancelled else rng.gauss(0, 9),
            direction=rng.choice(("UP", "DOWN")),
            share=rng.random(),
            valid_from=at,
            valid_until=at + timedelta(hours=1),
            lease_s=rng.uniform(0, 3600),
        )
    )


TARGETS = (
    Target(
        "webhook",
        message,
        (),
        share=12,
        make=some_message,
        seeds=[
            golden.DISPATCH,
            golden.MAXIMUM,
            golden.CANCELLATION,
            golden.PING,
            golden.NOTIFICATION,
            b'{"status":"accepted"}',
            b'{"status":"refused","reason":"no"}',
            b'{"active":true,"setpoint_id":"spt_1","power_kw":1.5}',
            sign(b"x", SECRETS, 1_784_563_200).encode(),
            *load("webhook"),
        ],
        tokens=(
            b"{",
            b"[",
            b'"',
            b"\\u0000",
            b"\\ud800",
            b"null",
            b"true",
            b"1e400",
            b"-0",
            b"1e308",
            b'"2026-07-20T16:00:00"',
            b'"2026-07-20T16:00:00+23:59"',
            b'"0001-01-01T00:00:00Z"',
            b'"9999-12-31T23:59:59.999999999Z"',
            b'"type":"ping"',
            b"t=1784563200",
            b",v1=",
            b'"revision":',
        ),
    ),
)
