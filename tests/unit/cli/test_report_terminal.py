"""The report on the terminal fits a hundred columns and does not scroll with the fleet."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from gateway.cli.report_terminal import print_report
from tests.harness.day_report import sample_report


def printed(report: dict[str, Any]) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=100, color_system=None))
    return stream.getvalue()


def test_tables_fit_a_hundred_columns_and_hold_the_numbers() -> None:
    text = printed(sample_report())
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    for said in (
        "All 4 checks hold", "asked 450 above the price cap", "107 %", "charger_ca_315",
        "4.50 kW off", "times out", "12:11 to 12:30", "28.000 kWh", "3.52 USD",
        "holds  the ledger balances", "net +5 %, absolute 21 %",
    ):  # fmt: skip
        assert said in text, said


def test_two_hundred_devices_do_not_scroll_the_screen() -> None:
    report = sample_report()
    few = len(printed(report).splitlines())
    report["devices"] = [
        {**report["devices"][0], "device": f"dev_{i:03d}", "measured_kw": float(i)}
        for i in range(200)
    ]
    assert len(printed(report).splitlines()) <= few + 12


def test_a_long_table_is_cut_and_says_so() -> None:
    report = sample_report()
    report["flags"] = [{**report["flags"][0], "device": f"dev_{i}"} for i in range(100)]
    text = printed(report)
    assert "more in report.html" in text
    assert "\n40  " not in text


def test_markup_in_a_name_is_printed_not_obeyed() -> None:
    report = sample_report()
    report["devices"][2]["device"] = "[red]x[/red]"
    assert "[red]x[/red]" in printed(report)


def test_a_run_without_anything_is_said_in_two_lines() -> None:
    assert printed({}).split() == ["No", "order:", "No", "check", "was", "stated"]


def test_a_failure_comes_first_and_loud() -> None:
    report = sample_report()
    report["checks"]["the ledger balances"] = False
    text = printed(report)
    assert "1 of 4 checks fail" in text
    assert text.index("FAILS  the ledger") < text.index("holds  ")
