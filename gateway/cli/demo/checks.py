"""What the demo claims, each as a check that a wrong run fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

Json = Mapping[str, Any]
_COVERAGE: Final = 0.8
"""A window counts from this coverage on."""
_SAME_KW: Final = 0.001
_WATT_HOURS: Final = Decimal("0.01")
_CENT: Final = Decimal("0.005")
_NEAR_KW: Final = 0.3
"""A read-back this near is the setpoint."""
_INTERVALS: Final = 2.0
"""Telemetry intervals in which a device has to fall short to be found out."""
_NOTICING: Final = 0.5
"""Part of an interval that polling over real sockets may take on top."""
_STREET: Final = (
    "OrderSubmitted", "OrderAwarded", "OrderPlanned", "SetpointsIssued", "SetpointsApplied",
    "WindowClosed", "DeliveryVerified", "OrderSettled",
)  # fmt: skip


def state_checks(report: Json, *, exits: Mapping[str, int], spoiled: int) -> dict[str, bool]:
    """Names are sentences; the demo exits 0 only if every one is true.

    `spoiled`: rows of the history that are wrong on purpose.
    """
    checks: dict[str, Callable[[], bool]] = {
        "the bulk import took every good row and named the bad one":
            lambda: _imported(report["imported"], spoiled),
        "every bid has its reason":
            lambda: all(award["reason"] for award in report["awards"]),
        "a bid above the cap was rejected": lambda: _too_dear(report),
        "every stage could handle every fact": lambda: report["dead_letters"] == 0,
        "the ledger balances": lambda: _ledger_balances(report),
        "the journal verifies": lambda: bool(report["journal"]["verified"]),
        "every process stopped cleanly": lambda: all(code == 0 for code in exits.values()),
    }  # fmt: skip
    if report["orders"]:
        checks |= {
            "every order went through every stage":
                lambda: all(_went_through(order) for order in report["orders"]),
            "setpoints read back where the protocol can": lambda: _read_back(report),
            "a shortfall led to a revised plan":
                lambda: any(order["revisions"] for order in report["orders"]),
            "every window has a baseline":
                lambda: all(w["baseline_kw"] is not None for w in report["windows"]),
            "every window is covered by readings":
                lambda: all(w["coverage"] >= _COVERAGE for w in report["windows"]),
            "delivered is measured minus baseline": lambda: _delivery_adds_up(report),
            "the rebound was measured": lambda: _rebound(report),
            "every statement line follows from its windows": lambda: _statement_adds_up(report),
            f"what ignores or clamps was flagged within {_allowed(report):g} intervals"
            " of when it could first be seen": lambda: _in_time(report),
            "no injected fault was missed": lambda: not report["truth"]["misses"],
            "no flag was a false alarm": lambda: not report["truth"]["false_alarms"],
        }  # fmt: skip
    return {name: bool(check()) for name, check in checks.items()}


def _imported(imported: Json, spoiled: int) -> bool:
    named = all(error["line"] and error["field"] and error["rule"] for error in imported["errors"])
    return imported["accepted"] > 0 and imported["rejected"] == spoiled and named


def _too_dear(report: Json) -> bool:
    return any(
        not award["accepted"] and "above the price cap" in award["reason"]
        for award in report["awards"]
    )


def _went_through(order: Json) -> bool:
    kinds = [event["kind"] for event in order["events"]]
    first = [kinds.index(kind) if kind in kinds else -1 for kind in _STREET]
    return -1 not in first and first == sorted(first) and order["state"] == "settled"


def _read_back(report: Json) -> bool:
    """Of what a device applied; what could not be told to it is another figure."""
    told = [
        row for row in report["devices"]
        if row["protocol"] in {"modbus", "mqtt"} and row["acknowledged"] == "applied"
    ]  # fmt: skip
    return bool(told) and all(
        row["read_back_kw"] is not None and abs(row["read_back_kw"] - row["setpoint_kw"]) < _NEAR_KW
        for row in told
    )


def _delivery_adds_up(report: Json) -> bool:
    sign = {order["id"]: 1 if order["direction"] == "UP" else -1 for order in report["orders"]}
    return all(
        abs(sign[w["order"]] * (w["measured_kw"] - w["baseline_kw"]) - w["delivered_kw"]) < _SAME_KW
        for w in report["windows"]
        if w["baseline_kw"] is not None and w["coverage"] >= _COVERAGE
    )


def _rebound(report: Json) -> bool:
    watched = {row["order"] for row in report["rebound"] if row["baseline_kw"] is not None}
    return watched == {order["id"] for order in report["orders"]}


def _statement_adds_up(report: Json) -> bool:
    """Recompute each line from the windows: min(delivered, instructed), never negative."""
    hours = Decimal(report["market"]["grid_minutes"]) / 60
    for line in report["statement"]:
        paid = sum(
            Decimal(repr(max(0.0, min(w["delivered_kw"], w["instructed_kw"])))) * hours
            for w in report["windows"]
            if w["contract"] == line["contract"] and w["order"] == line["order"]
        )
        quantity, price = Decimal(line["quantity"]), Decimal(line["price"])
        if abs(quantity - paid) > _WATT_HOURS:
            return False
        if abs(quantity * price - Decimal(line["amount"])) > _CENT:
            return False
    return bool(report["statement"])


def _allowed(report: Json) -> float:
    return _INTERVALS if report["transport"] == "lockstep" else _INTERVALS + _NOTICING


def _in_time(report: Json) -> bool:
    """By the judge's count, not by what the flags say of themselves."""
    late = [
        fault.get("after_intervals")
        for fault in report["truth"]["injected"]
        if fault["fault"] in {"ignores", "clamps"}
    ]
    return all(each is not None and each <= _allowed(report) for each in late)


def _ledger_balances(report: Json) -> bool:
    debit = sum((Decimal(row["debit"]) for row in report["ledger"]), Decimal())
    credit = sum((Decimal(row["credit"]) for row in report["ledger"]), Decimal())
    return debit == credit
