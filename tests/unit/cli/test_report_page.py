"""The report page: complete, escaped, self-contained, for any run however empty or large."""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from gateway.cli.report import render_html, write_report
from gateway.cli.report_view import view
from tests.harness.day_report import (
    CAMPUS,
    EVENING,
    MIDDAY,
    is_free_text,
    replaced,
    sample_report,
    strings,
)  # fmt: skip

EVIL = "<script>alert('x')</script>&\"'{{7*7}}"


def figures(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)


def test_files_are_written_and_the_json_is_the_report(tmp_path: Path) -> None:
    report = sample_report()
    write_report(report, tmp_path / "new")
    again = json.loads((tmp_path / "new" / "report.json").read_text(encoding="utf-8"))
    assert again == report
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE")
    assert (tmp_path / "new" / "statement.csv").read_bytes().startswith(b"order,contract,seller")


def test_exact_amounts_and_instants_survive_json(tmp_path: Path) -> None:
    at = datetime.fromisoformat("2017-07-21T00:00:00+00:00")
    write_report({"amount": Decimal("2.10"), "at": at}, tmp_path)
    text = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert text == {"amount": "2.10", "at": "2017-07-21T00:00:00+00:00"}


def test_unknown_values_are_refused_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain values"):
        write_report({"set": {1}}, tmp_path)


@pytest.mark.parametrize("lane", ["flags", "revisions", "both"])
def test_an_order_in_which_nothing_was_flagged_or_planned_anew_is_drawn(lane: str) -> None:
    report = sample_report()
    if lane != "revisions":
        report["flags"] = []
    if lane != "flags":
        for order in report["orders"]:
            order["revisions"] = []
    assert len(figures(render_html(report))) == len(figures(render_html(sample_report())))


def test_page_shows_every_part_of_the_day() -> None:
    page = render_html(sample_report())
    for text in (
        "All 4 checks hold", "30.0 kW DOWN and 20.0 kW UP on feeder F-114",
        "Thursday 20 July 2017 · 12:00 to 13:00 · 17:00 to 18:00 · America/Los_Angeles",
        "Midday: 30.0 kW DOWN", "Evening: 20.0 kW UP", "delivered 32.0 of 30.0 kWh (107 %)",
        "asked 450 above the price cap", "uplink lost 12:20 to 12:23",
        "gateway killed 17:50 to 17:53", "1 devices fall 2.91 kW short", "fontana_02_battery",
        "the unit did not answer its poll", "2 of 2", "Settlement: 3.52 USD",
        "The ledger holds the same: 3.52 payable", "0.060 USD/kWh", "a number from 1 to 86400",
        "9f" * 32, MIDDAY, EVENING,
    ):  # fmt: skip
        assert text in page, text


def test_each_order_has_a_plot_and_a_merit_order_and_each_contract_a_bar() -> None:
    drawn = figures(render_html(sample_report()))
    labels = [ET.fromstring(each).get("aria-label") or "" for each in drawn]  # noqa: S314 - ours
    assert sum("measured power against baseline" in label for label in labels) == 2
    assert sum(label.startswith("Merit order") for label in labels) == 2
    assert sum(" against " in label and "measured" not in label for label in labels) == 4 + 2


def test_the_plot_says_what_its_lines_are_and_marks_events_in_time() -> None:
    midday, evening = (
        each for each in figures(render_html(sample_report())) if "measured power" in each
    )
    for label in ("instructed", "baseline", "measured", "delivered", "after the order"):
        assert f">{label}</text>" in midday, label
    assert "uplink lost" in midday
    assert "gateway killed" not in midday
    assert "gateway killed 17:50 to 17:53" in evening
    assert "1: times out, dev_fontana_02_battery, matched" in midday
    assert "2: ignores, dev_charger_ca_315, matched" in evening
    assert "revision 1: 1 devices fall" in evening


def test_page_asks_nobody_for_anything_and_runs_nothing() -> None:
    page = render_html(sample_report())
    assert re.findall(r"https?://", page) == []
    assert re.findall(r"(?:src|href)\s*=", page) == []
    for word in ("<script", "@import", "url(", "<iframe", "<link", "onload"):
        assert word not in page
    assert "default-src 'none'" in page


def test_figures_have_no_ids_that_could_collide() -> None:
    assert all(" id=" not in each for each in figures(render_html(sample_report())))


def hostile(text: str) -> dict[str, Any]:
    report = sample_report()
    for path, said in list(strings(report)):
        if is_free_text(said):
            replaced(report, path, text)
    report["checks"] = {text: True}
    return report


def test_every_value_is_escaped_in_html_and_svg() -> None:
    page = render_html(hostile(EVIL))
    assert "<script" not in page
    assert "{{7*7}}" in page
    assert page.count("&lt;script&gt;") > 100
    for each in figures(page):
        ET.fromstring(each)  # noqa: S314 - our own output: well-formed in spite of it


@pytest.mark.parametrize("evil", ["", " ", "../..", "\N{SNOWMAN}" * 500, "a\nb\r\tc", "%s{0}$x"])
def test_any_text_gives_a_page(evil: str) -> None:
    assert render_html(hostile(evil)).endswith("</html>")


@pytest.mark.parametrize("section", sorted(sample_report()))
def test_a_section_that_is_missing_leaves_a_page(section: str) -> None:
    report = sample_report()
    del report[section]
    assert "</html>" in render_html(report)


@pytest.mark.parametrize("section", sorted(sample_report()))
def test_a_section_that_is_empty_leaves_a_page(section: str) -> None:
    report = sample_report()
    if isinstance(report[section], list | dict):
        report[section] = type(report[section])()
    assert "</html>" in render_html(report)


def test_an_empty_run_still_gives_a_page() -> None:
    page = render_html({})
    assert "No order" in page
    assert "No check was stated" in page


def test_a_day_without_orders_shows_the_auctions_and_that_nobody_was_called() -> None:
    report = sample_report()
    for name in ("orders", "windows", "rebound", "trace", "devices", "statement", "ledger"):
        report[name] = []
    for award in report["awards"]:
        award["order"] = ""
    page = render_html(report)
    assert "Midday: nobody was called" in page
    assert "Evening: nobody was called" in page
    assert "nothing was instructed" in page
    assert sum("Merit order" in each for each in figures(page)) == 2


def test_a_day_without_flags_names_what_was_missed() -> None:
    report = sample_report()
    report["flags"] = []
    for fault in report["truth"]["injected"]:
        del fault["after_intervals"]
    report["truth"]["misses"] = report["truth"]["injected"]
    page = render_html(report)
    assert "0 of 2" in page
    assert "2 missed, 0 false alarms" in page
    assert page.count('<span class="word bad">missed</span>') == 2


def test_two_hundred_devices_are_sums_and_a_folded_list() -> None:
    report = sample_report()
    report["devices"] = [
        {**report["devices"][0], "device": f"dev_nr_{i:03d}", "measured_kw": 0.0}
        for i in range(200)
    ]
    page = render_html(report)
    assert "All 200 setpoints, device by device" in page
    assert "188 more in the list of devices" in page
    before, _, after = page.partition("<summary>All 200 setpoints")
    assert "nr_199" not in before
    assert "nr_199" in after


def test_a_failed_check_leads_and_turns_the_verdict() -> None:
    report = sample_report()
    report["checks"]["the ledger balances"] = False
    shown = view(report)
    assert not shown.holds
    assert shown.verdict == "1 of 4 checks fail"
    assert shown.checks[0].name == "the ledger balances"
    page = render_html(report)
    assert page.index("FAILS: the ledger balances") < page.index("<main>")


def test_no_checks_is_no_success() -> None:
    assert not view({**sample_report(), "checks": {}}).holds


def test_a_refused_baseline_is_shown_and_not_counted_as_zero_baseline() -> None:
    report = sample_report()
    for name in ("windows", "rebound", "trace"):
        for row in report[name]:
            if row["seller"] == CAMPUS:
                row.update(baseline_kw=None)
                row.update({} if name == "trace" else {"delivered_kw": 0.0, "note": "6 of 10 days"})
    page = render_html(report)
    evening = next(e for e in figures(page) if "measured power" in e and "20.0 kW UP" in e)
    assert "no baseline" in evening
    assert "0.0 (no baseline)" in page
    assert "caiso_10_of_10: 6 of 10 days" in page


def test_the_street_counts_repeated_facts() -> None:
    stages = view(sample_report()).orders[0].stages
    assert [(s.name, s.count) for s in stages if s.count > 1] == [("Setpoints applied", 3)]
    assert stages[0].at == "12:00:00"


def test_a_time_zone_nobody_knows_is_utc() -> None:
    report = sample_report()
    report["market"]["timezone"] = "Mars/Olympus"
    assert "19:00 to 20:00" in view(report).subtitle


def test_the_same_report_renders_the_same_page() -> None:
    assert render_html(sample_report()) == render_html(sample_report())


def test_the_tile_says_the_error_with_and_without_its_signs() -> None:
    tiles = {tile.label: (tile.value, tile.detail) for tile in view(sample_report()).tiles}
    value, detail = tiles["Settlement error"]
    assert value == "+5.3 %"
    assert "without signs 21.1 %" in detail
