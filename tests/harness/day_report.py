"""A made-up report of a day: two orders, faults, incidents; small enough to check by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

MIDDAY, EVENING = "ord_01MIDDAY0", "ord_01EVENING"
STARTS = {
    MIDDAY: datetime.fromisoformat("2017-07-20T19:00:00+00:00"),
    EVENING: datetime.fromisoformat("2017-07-21T00:00:00+00:00"),
}
HOMES, CARS, CAMPUS = "org_sunrise_homes", "org_voltfleet_cars", "org_campus_garage"
SIGNS = {MIDDAY: -1.0, EVENING: 1.0}
CONTRACTS = {
    # contract: (order, seller, instructed kW, baseline kW, delivered kW, price per MWh)
    "ctr_M1": (MIDDAY, HOMES, 20.0, -5.0, 24.0, "60"),
    "ctr_M2": (MIDDAY, HOMES, 10.0, -2.0, 8.0, "95"),
    "ctr_E1": (EVENING, CARS, 12.0, -40.0, 12.5, "130"),
    "ctr_E2": (EVENING, CAMPUS, 8.0, -60.0, -4.0, "240"),
}
REBOUND_KW = -3.0
KINDS = (
    "OrderSubmitted", "OrderAwarded", "OrderPlanned", "SetpointsIssued", "SetpointsApplied",
    "SetpointsApplied", "SetpointsApplied", "WindowClosed", "DeliveryVerified", "OrderSettled",
)  # fmt: skip
DEVICES = (
    (MIDDAY, "dev_fontana_02_battery", "modbus", HOMES, 0.0, -4.01, -4.0, -3.99, "applied"),
    (EVENING, "dev_charger_ca_314", "mqtt", CARS, -6.6, -1.45, -1.45, -1.45, "applied"),
    (EVENING, "dev_charger_ca_315", "mqtt", CARS, -6.6, -2.0, -2.0, -6.5, "applied"),
    (EVENING, "dev_campus_garage_1", "openadr", CAMPUS, -61.2, -50.7, None, -60.1, "refused"),
)


def sample_report() -> dict[str, Any]:
    """A fresh copy that a test may spoil."""
    return copy.deepcopy(_report())


def strings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Every text inside a report, with the way to it."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inside in value.items():
            yield from strings(inside, (*path, key))
    elif isinstance(value, list):
        for index, inside in enumerate(value):
            yield from strings(inside, (*path, index))


def replaced(report: dict[str, Any], path: tuple[Any, ...], text: str) -> None:
    """Put another text at the end of a way."""
    place: Any = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = text


def is_free_text(text: str) -> bool:
    """Whether it is neither an instant nor a number, so that anything may stand there."""
    for read in (datetime.fromisoformat, Decimal):
        try:
            read(text)
        except (ValueError, ArithmeticError):
            continue
        return False
    return True


def _report() -> dict[str, Any]:
    return {
        "seed": 1, "speed": None, "transport": "lockstep",
        "market": {
            "day": "2017-07-20", "timezone": "America/Los_Angeles", "feeder": "F-114",
            "grid_minutes": 15, "speed": None, "currency": "USD", "history_rows": 35156,
        },
        "imported": {"accepted": 35156, "rejected": 1, "errors": [
            {"seller": HOMES, "line": 1234, "field": "seconds", "error": "'quarter'",
             "rule": "a number from 1 to 86400", "remedy": ""},
        ]},
        "sellers": [
            {"id": HOMES, "name": "Sunrise Homes", "technology": "battery"},
            {"id": CARS, "name": "Voltfleet Cars", "technology": "ev_charger"},
            {"id": CAMPUS, "name": "", "technology": "site"},
        ],
        "incidents": [
            {"kind": "uplink_lost", "at": "2017-07-20T19:20:00+00:00"},
            {"kind": "uplink_mended", "at": "2017-07-20T19:23:00+00:00"},
            {"kind": "gateway_killed", "at": "2017-07-21T00:50:00+00:00"},
            {"kind": "gateway_started", "at": "2017-07-21T00:53:00+00:00"},
        ],
        "awards": [*_awards()],
        "orders": [_order(MIDDAY, "midday", "DOWN", 30.0), _order(EVENING, "evening", "UP", 20.0)],
        "setpoints": {"issued": 4, "applied": 3, "refused": 1, "unreachable": 0, "unconfirmed": 0},
        "devices": [
            {"order": o, "device": d, "protocol": p, "seller": s, "reference_kw": ref,
             "setpoint_kw": sp, "revision": 0, "acknowledged": ack, "read_back_kw": rb,
             "measured_kw": m, "lease_s": 900.0}
            for o, d, p, s, ref, sp, rb, m, ack in DEVICES
        ],
        "windows": [_window(c, q) for c in CONTRACTS for q in range(4)],
        "rebound": [_window(c, q) for c in CONTRACTS for q in range(4, 6)],
        "trace": [_point(c, minute) for c in CONTRACTS for minute in range(-30, 90)],
        "flags": [
            {"device": "dev_fontana_02_battery", "kind": "times_out",
             "at": "2017-07-20T19:12:00Z", "after_intervals": 1.0, "order": MIDDAY,
             "evidence": "the unit did not answer its poll"},
            {"device": "dev_charger_ca_315", "kind": "ignores", "at": "2017-07-21T00:03:00Z",
             "after_intervals": 2.0, "order": EVENING,
             "evidence": "commanded -2.00 kW, measured -6.50 kW"},
        ],
        "statement": [_line(c) for c in CONTRACTS],
        "ledger": [
            {"account": "flexibility_cost:org_grid_operator", "debit": "3.52", "credit": "0"},
            {"account": f"payable:{HOMES}", "debit": "0", "credit": "1.96"},
            {"account": f"payable:{CARS}", "debit": "0", "credit": "1.56"},
        ],
        "journal": {"events": 41, "head_hash": "9f" * 32, "verified": True},
        "dead_letters": 0,
        "quarantined": 3,
        "truth": {
            "delivered_kwh": 38.0, "settled_kwh": 40.0, "error_pct": 5.3,
            "abs_error_pct": 21.1,
            "orders": [
                {"order": MIDDAY, "seller": HOMES, "delivered_kwh": 31.0, "settled_kwh": 28.0,
                 "error_pct": -9.7},
                {"order": EVENING, "seller": CARS, "delivered_kwh": 7.0, "settled_kwh": 12.0,
                 "error_pct": 71.4},
            ],
            "injected": [
                {"device": "dev_fontana_02_battery", "fault": "times_out",
                 "at": "2017-07-20T19:11:00Z", "until": "2017-07-20T19:30:00Z",
                 "after_intervals": 1.0},
                {"device": "dev_charger_ca_315", "fault": "ignores",
                 "at": "2017-07-21T00:01:00Z", "until": "2017-07-21T01:00:00Z",
                 "after_intervals": 2.0},
            ],
            "misses": [], "false_alarms": [],
        },
        "checks": {"every bid has its reason": True, "the ledger balances": True,
                   "the journal verifies": True, "no flag was a false alarm": True},
    }  # fmt: skip


def _awards() -> Iterator[dict[str, Any]]:
    for order, seller, kw, _, _, price in CONTRACTS.values():
        yield {
            "order": order, "event": "midday" if order == MIDDAY else "evening",
            "seller": seller, "kw": kw, "price": price, "accepted": True,
            "reason": "accepted in full",
        }  # fmt: skip
    yield {
        "order": EVENING, "event": "evening", "seller": CAMPUS, "kw": 0.0, "price": "450",
        "accepted": False,
        "reason": "rejected: asked 450 above the price cap 400 USD per MWh",
    }  # fmt: skip


def _order(order: str, event: str, direction: str, kw: float) -> dict[str, Any]:
    start = STARTS[order]
    return {
        "id": order, "direction": direction, "kw": kw, "need_kw": kw, "event": event,
        "start": start.isoformat(), "end": (start + timedelta(hours=1)).isoformat(),
        "state": "settled",
        "revisions": [
            {"revision": 1, "at": (start + timedelta(minutes=4)).isoformat(),
             "reason": "1 devices fall 2.91 kW short of their share"},
        ],
        "events": [
            {"kind": kind, "at": (start + i * timedelta(minutes=7, seconds=3)).isoformat()}
            for i, kind in enumerate(KINDS)
        ],
    }  # fmt: skip


def _window(contract: str, quarter: int) -> dict[str, Any]:
    order, seller, kw, baseline, delivered, _ = CONTRACTS[contract]
    after = quarter >= 4
    got = REBOUND_KW if after else delivered
    return {
        "order": order, "contract": contract, "seller": seller,
        "start": (STARTS[order] + quarter * timedelta(minutes=15)).isoformat(),
        "instructed_kw": 0.0 if after else kw, "baseline_kw": baseline,
        "measured_kw": baseline + SIGNS[order] * got, "delivered_kw": got, "coverage": 1.0,
        "baseline_method": "caiso_10_of_10", "baseline_days": ["2017-07-19"], "version": 1,
        "note": "",
    }  # fmt: skip


def _point(contract: str, minute: int) -> dict[str, Any]:
    order, seller, kw, baseline, delivered, _ = CONTRACTS[contract]
    inside, after = 0 <= minute < 60, minute >= 60
    moved = SIGNS[order] * (delivered if inside else REBOUND_KW if after else 0.0)
    return {
        "at": STARTS[order].timestamp() + 60 * minute, "order": order, "contract": contract,
        "seller": seller, "measured_kw": baseline + moved + 0.4 * math.sin(minute / 3.0),
        "instructed_kw": kw if inside else 0.0 if after else None,
        "baseline_kw": baseline if inside or after else None,
    }  # fmt: skip


def _line(contract: str) -> dict[str, Any]:
    order, seller, kw, _, delivered, price = CONTRACTS[contract]
    quantity = Decimal(str(max(0.0, min(kw, delivered)))).quantize(Decimal("0.001"))
    each = Decimal(price) / 1000
    return {
        "order": order, "contract": contract, "seller": seller, "line": "utilisation",
        "quantity": str(quantity), "unit": "kWh", "price": f"{each:.3f}",
        "amount": str((quantity * each).quantize(Decimal("0.01"))), "currency": "USD",
        "explains": "Baseline caiso_10_of_10 over 2017-07-19. Periods: 2017-07-20T19:00Z 5.000 kWh"
                    " (delivered 6.000, instructed 5.000); 2017-07-20T19:15Z 5.000 kWh",
    }  # fmt: skip
