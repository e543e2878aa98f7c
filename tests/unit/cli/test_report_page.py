"""The report page: complete, escaped, self-contained; the terminal tables fit 100 columns."""

from __future__ import annotations

import io
import json
import math
import re
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from gateway.cli.report import print_report, render_html, write_report
from gateway.cli.report_view import view

START = datetime.fromisoformat("2017-07-21T00:00:00+00:00")
ORDER = "ord_01BNMK5Y00D4X7Q3V5T8W1ZC2E"
SELLERS = {
    "org_sunrise_homes": ("ctr_01A", 12.0, -2.5, "caiso_10_of_10", "180"),
    "org_voltfleet_cars": ("ctr_01B", 11.5, -26.4, "meter_before_after", "140"),
    "org_campus_garage": ("ctr_01C", 10.5, -52.4, "caiso_10_of_10", "240"),
}
KINDS = (
    "OrderSubmitted", "OrderAwarded", "OrderPlanned", "SetpointsIssued", "SetpointsApplied",
    "SetpointsApplied", "SetpointsApplied", "WindowClosed", "DeliveryVerified", "OrderSettled",
)  # fmt: skip
DEVICES = (
    ("dev_fontana_02_battery", "modbus", "org_sunrise_homes", 0.0, 4.01, 4.0, 3.99),
    ("dev_charger_ca_314", "mqtt", "org_voltfleet_cars", -6.6, -1.45, -1.45, -1.45),
    ("dev_campus_garage_1", "openadr", "org_campus_garage", -61.2, -50.7, None, -49.8),
)


def measured(seller: str, minute: int) -> float:
    """A made-up meter: baseline, a ramp up at the start of the hour, some ripple."""
    _, kw, baseline, _, _ = SELLERS[seller]
    called = 0.93 * kw if 0 <= minute < 60 else 0.0
    ripple = 0.4 * math.sin(minute / 3.0) + (1.1 * math.sin(minute / 9.0) if kw < 11 else 0.0)
    return baseline + called + ripple


def window(seller: str, quarter: int) -> dict[str, Any]:
    contract, kw, baseline, method, _ = SELLERS[seller]
    mean = sum(measured(seller, 15 * quarter + m) for m in range(15)) / 15
    return {
        "order": ORDER, "contract": contract, "seller": seller,
        "start": (START + quarter * timedelta(minutes=15)).isoformat(), "instructed_kw": kw,
        "baseline_kw": baseline, "measured_kw": mean, "delivered_kw": mean - baseline,
        "coverage": 1.0, "baseline_method": method, "note": "",
    }  # fmt: skip


def point(seller: str, minute: int) -> dict[str, Any]:
    inside = 0 <= minute < 60
    return {
        "at": START.timestamp() + 60 * minute, "seller": seller,
        "measured_kw": measured(seller, minute),
        "instructed_kw": SELLERS[seller][1] if inside else None,
        "baseline_kw": SELLERS[seller][2] if inside else None,
    }  # fmt: skip


def sample_report() -> dict[str, Any]:
    order = {
        "id": ORDER, "direction": "UP", "kw": 34.0, "need_kw": 34.0, "start": START.isoformat(),
        "end": (START + timedelta(hours=1)).isoformat(), "state": "settled",
        "events": [
            {"kind": kind, "at": (START + i * timedelta(minutes=7, seconds=3)).isoformat()}
            for i, kind in enumerate(KINDS)
        ],
    }  # fmt: skip
    return {
        "seed": 1,
        "market": {
            "day": "2017-07-20", "timezone": "America/Los_Angeles", "feeder": "F-114",
            "grid_minutes": 15, "speed": 180.0, "currency": "USD", "history_rows": 35156,
        },
        "awards": [
            {"order": ORDER, "seller": s, "kw": kw, "price": price, "accepted": s != "x",
             "reason": f"Accepted whole: {kw} kW at {price} USD per MWh stands early in the merit "
                       "order and fits what is still needed."}
            for s, (_, kw, _, _, price) in SELLERS.items()
        ],
        "orders": [order],
        "setpoints": {"issued": 3, "applied": 3, "refused": 0, "unreachable": 0, "unconfirmed": 0},
        "devices": [
            {"device": d, "protocol": p, "seller": s, "reference_kw": ref, "setpoint_kw": sp,
             "acknowledged": "applied", "read_back_kw": rb, "measured_kw": m, "lease_s": 900.0}
            for d, p, s, ref, sp, rb, m in DEVICES
        ],
        "windows": [window(s, quarter) for s in SELLERS for quarter in range(4)],
        "trace": [point(s, minute) for s in SELLERS for minute in range(-30, 60)],
        "flags": [],
        "statement": [
            {"seller": s, "line": "utilisation", "quantity": "0.0107", "unit": "MWh",
             "price": price, "amount": "1.93", "currency": "USD",
             "explains": "4 periods of 15 min; min(delivered, instructed) against " + method}
            for s, (_, _, _, method, price) in SELLERS.items()
        ],
        "ledger": [
            {"account": "flexibility_cost:org_grid_operator", "debit": "5.79", "credit": "0"},
            {"account": "payable:org_sunrise_homes", "debit": "0", "credit": "5.79"},
        ],
        "journal": {"events": 41, "head_hash": "9f" * 32, "verified": True},
        "truth": {"delivered_kwh": 31.2, "settled_kwh": 31.6, "error_pct": 1.3},
        "quarantined": 0,
        "checks": {"every bid has its reason": True, "the ledger balances": True,
                   "the journal verifies": True, "every setpoint was applied": True},
    }  # fmt: skip


def test_files_are_written_and_the_json_is_the_report(tmp_path: Path) -> None:
    report = sample_report()
    write_report(report, tmp_path / "new")
    again = json.loads((tmp_path / "new" / "report.json").read_text(encoding="utf-8"))
    assert again == report
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE")


def test_exact_amounts_and_instants_survive_json(tmp_path: Path) -> None:
    write_report({"amount": Decimal("2.10"), "at": START}, tmp_path)
    text = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert text == {"amount": "2.10", "at": "2017-07-21T00:00:00+00:00"}


def test_unknown_values_are_refused_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain values"):
        write_report({"set": {1}}, tmp_path)


def test_page_shows_order_awards_devices_windows_statement_ledger_and_journal() -> None:
    page = render_html(sample_report())
    for text in (
        "34.0 kW UP on feeder F-114", ORDER, "Thursday 20 July 2017, 17:00 to 18:00",
        "all 4 checks hold", "merit order", "fontana_02_battery", "17:45 to 18:00",
        "1.93 USD", "payable:org_sunrise_homes", "9f" * 32, "meter_before_after",
    ):  # fmt: skip
        assert text in page, text


def test_page_has_one_plot_of_the_order_and_one_per_contract_each_named() -> None:
    page = render_html(sample_report())
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) == 1 + len(SELLERS)
    for figure in figures:
        element = ET.fromstring(figure.replace("xlink:", ""))  # noqa: S314 - our own output
        assert element.get("role") == "img"
        assert element.get("aria-label")
    for label in ("instructed", "baseline", "measured", "delivered"):
        assert sum(label in figure for figure in figures) >= len(SELLERS)


def test_page_asks_nobody_for_anything_and_runs_nothing() -> None:
    page = render_html(sample_report())
    addresses = set(re.findall(r"https?://[^\"'\s<>]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<script" not in page
    assert "@import" not in page
    assert "url(http" not in page
    assert "default-src 'none'" in page


def test_ids_of_the_figures_never_collide() -> None:
    page = render_html(sample_report())
    clips = re.findall(r'<clipPath id="([^"]+)"', page)
    assert len(clips) == len(set(clips))


def test_every_value_is_escaped_in_html_and_svg() -> None:
    evil = "<script>alert('x')</script>&$\\frac{1}{2}$"
    report = sample_report()
    for row in (*report["windows"], *report["trace"], *report["awards"], *report["statement"]):
        row["seller"] = evil
    report["awards"][0]["reason"] = evil
    report["devices"][0]["device"] = evil
    report["checks"][evil] = True
    report["market"]["feeder"] = evil
    page = render_html(report)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > len(report["windows"])


def test_a_failed_check_leads_and_turns_the_verdict() -> None:
    report = sample_report()
    report["checks"]["the ledger balances"] = False
    shown = view(report)
    assert not shown.holds
    assert shown.verdict == "1 of 4 checks fail"
    assert shown.checks[0].name == "the ledger balances"
    assert "FAILS" in render_html(report)


def test_no_checks_is_no_success() -> None:
    assert not view({**sample_report(), "checks": {}}).holds


def test_a_refused_baseline_is_shown_and_not_counted_as_zero_baseline() -> None:
    report = sample_report()
    for row in report["windows"]:
        if row["seller"] == "org_campus_garage":
            row.update(baseline_kw=None, delivered_kw=0.0, note="too few days: 6 of 10")
    for row in report["trace"]:
        if row["seller"] == "org_campus_garage":
            row["baseline_kw"] = None
    page = render_html(report)
    assert "too few days: 6 of 10" in page
    assert "no baseline" in page


def test_an_empty_run_still_gives_a_page() -> None:
    page = render_html({})
    assert "No order" in page
    assert "no check was stated" in page


def test_the_street_counts_repeated_facts() -> None:
    stages = view(sample_report()).stages[0]
    assert [(s.name, s.count) for s in stages if s.count > 1] == [("Setpoints applied", 3)]
    assert stages[0].at == "17:00:00"


def test_terminal_tables_fit_a_hundred_columns_and_hold_the_numbers() -> None:
    stream = io.StringIO()
    print_report(sample_report(), Console(file=stream, width=100, color_system=None))
    text = stream.getvalue()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    for said in ("all 4 checks hold", "fontana_02_battery", "1.93 USD", "holds  the ledger"):
        assert said in text, said


def test_markup_in_a_name_is_printed_not_obeyed() -> None:
    report = sample_report()
    report["devices"][0]["device"] = "[red]x[/red]"
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=100, color_system=None))
    assert "[red]x[/red]" in stream.getvalue()


def test_the_same_report_renders_the_same_page() -> None:
    assert render_html(sample_report()) == render_html(sample_report())
