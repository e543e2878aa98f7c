"""What the demo claims, each as a check that a wrong run fails."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

Json = Mapping[str, Any]
_FULL_COVERAGE: Final = 0.95
_FOLLOWS_KW: Final = 0.3
"""A battery follows its setpoint this closely on average, ramps included."""


def state_checks(report: Json, *, exits: Mapping[str, int], imported: Json) -> dict[str, bool]:
    """Names are sentences; the demo exits 0 only if every one is true."""
    windows = report["windows"]
    return {
        "the bulk import took every row of the meter history": imported["accepted"] > 0
        and imported["rejected"] == 0,
        "every bid has its reason": all(award["reason"] for award in report["awards"]),
        "the order went through every stage": _went_through(report["orders"][0]),
        "every setpoint was applied": report["setpoints"]["issued"] > 0
        and report["setpoints"]["applied"] == report["setpoints"]["issued"],
        "setpoints read back where the protocol can": _read_back(report),
        "batteries did what they acknowledged": _batteries_follow(report),
        "every window is covered by readings": bool(windows)
        and all(window["coverage"] >= _FULL_COVERAGE for window in windows),
        "every window has a baseline": all(w["baseline_kw"] is not None for w in windows),
        "delivered is measured minus baseline": _delivery_adds_up(report),
        "every statement line follows from its windows": _statement_adds_up(report),
        "the ledger balances": _ledger_balances(report),
        "the journal verifies": report["journal"]["verified"],
        "every process stopped cleanly": all(code == 0 for code in exits.values()),
    }


def _went_through(order: Json) -> bool:
    kinds = [event["kind"] for event in order["events"]]
    street = ["OrderSubmitted", "OrderAwarded", "OrderPlanned", "SetpointsIssued",
              "SetpointsApplied", "WindowClosed", "DeliveryVerified", "OrderSettled"]  # fmt: skip
    first = [kinds.index(kind) if kind in kinds else -1 for kind in street]
    return -1 not in first and first == sorted(first) and order["state"] == "settled"


def _read_back(report: Json) -> bool:
    told = [row for row in report["devices"] if row["protocol"] in {"modbus", "mqtt"}]
    return bool(told) and all(
        row["read_back_kw"] is not None
        and abs(row["read_back_kw"] - row["setpoint_kw"]) < _FOLLOWS_KW
        for row in told
    )


def _batteries_follow(report: Json) -> bool:
    rows = [row for row in report["devices"] if row["protocol"] == "modbus"]
    return bool(rows) and all(
        row["measured_kw"] is not None
        and abs(row["measured_kw"] - row["setpoint_kw"]) < _FOLLOWS_KW
        for row in rows
    )


def _delivery_adds_up(report: Json) -> bool:
    sign = 1 if report["orders"][0]["direction"] == "UP" else -1
    return all(
        abs(sign * (w["measured_kw"] - w["baseline_kw"]) - w["delivered_kw"]) < 0.001  # noqa: PLR2004
        for w in report["windows"]
        if w["baseline_kw"] is not None
    )


def _statement_adds_up(report: Json) -> bool:
    """Recompute each line from the windows: min(delivered, instructed), never negative."""
    hours = Decimal(report["market"]["grid_minutes"]) / 60
    for line in report["statement"]:
        paid = sum(
            Decimal(repr(max(0.0, min(w["delivered_kw"], w["instructed_kw"])))) * hours
            for w in report["windows"]
            if w["seller"] == line["seller"]
        )
        quantity, price = Decimal(line["quantity"]), Decimal(line["price"])
        if abs(quantity - paid) > Decimal("0.01"):
            return False
        if abs(quantity * price - Decimal(line["amount"])) > Decimal("0.005"):
            return False
    return bool(report["statement"])


def _ledger_balances(report: Json) -> bool:
    debit = sum((Decimal(row["debit"]) for row in report["ledger"]), Decimal())
    credit = sum((Decimal(row["credit"]) for row in report["ledger"]), Decimal())
    return bool(report["ledger"]) and debit == credit
