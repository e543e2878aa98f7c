"""The judge: energy against the counterfactual, flags against what was injected."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from firmware_sim import counterfactual, judge
from firmware_sim.__main__ import simulator
from firmware_sim.planning import Planned
from firmware_sim.scenario import save
from marketplace_core.errors import ConfigError
from marketplace_core.intervals import Interval
from marketplace_core.units import Direction
from tests.harness.days import DATA

Report = dict[str, Any]
QUARTER = timedelta(minutes=15)


@pytest.fixture(scope="module")
def undisturbed(day: Planned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("judge") / "counterfactual.jsonl"
    counterfactual.write(*day, DATA, out)
    return out


def moved(path: Path, out: Path, device: str, span: Interval, kw: float) -> Path:
    """The truth of a day in which one device did something else over a span."""
    lines = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row["device"] == device and span.contains(datetime.fromisoformat(row["at"])):
            row["power_kw"] += kw
        lines.append(json.dumps(row))
    out.write_text("\n".join(lines) + "\n")
    return out


def report(day: Planned, seller: str, contracts: int, direction: Direction) -> Report:
    span = day.scenario.market.event(direction).interval
    starts = [span.start + index * QUARTER for index in range(8)]
    return {
        "orders": [{"id": "ord_1", "direction": direction.value, "need_kw": 10}],
        "windows": [
            {
                "order": "ord_1", "seller": seller, "contract": f"ctr_{number}",
                "start": start.isoformat(), "instructed_kw": 2.0, "baseline_kw": 0.0,
                "measured_kw": 0.0, "delivered_kw": 3.0, "coverage": 1.0,
            }
            for number in range(contracts)
            for start in starts
        ],
        "statement": [
            {
                "seller": seller, "line": "utilisation", "quantity": "0.0045", "unit": "MWh",
                "price": "100", "amount": "0.45", "currency": "USD", "explains": "",
            },
            {
                "seller": seller, "line": "fee", "quantity": "1", "unit": "month",
                "price": "5", "amount": "5", "currency": "USD", "explains": "",
            },
        ],
        "flags": [],
    }  # fmt: skip


def verdict(day: Planned, report: Report, truth: Path, undisturbed: Path) -> judge.Verdict:
    powers = (judge.read_truth(truth), judge.read_truth(undisturbed))
    return judge.judge(day.scenario, day.world, report, powers)


@pytest.mark.parametrize("direction", list(Direction))
def test_delivered_is_what_the_contracts_meters_did_beyond_what_they_would_have(
    day: Planned, undisturbed: Path, tmp_path: Path, direction: Direction
) -> None:
    home = day.scenario.homes[0].meter
    span = day.scenario.market.event(direction).interval
    kw = 2.0 * direction.sign
    truth = moved(undisturbed, tmp_path / "t", home, span, kw)
    # what happens after the event, or in a device behind the meter, is no delivery
    truth = moved(truth, truth, home, Interval(span.end, span.end + QUARTER), 9.0)
    truth = moved(truth, truth, day.scenario.homes[0].battery, span, 9.0)
    said = report(day, "org_sunrise_homes", 2, direction)
    found = verdict(day, said, truth, undisturbed)
    assert found.delivered_kwh == pytest.approx(4.0, abs=1e-3)
    assert found.settled_kwh == pytest.approx(4.5)
    assert found.error_pct == pytest.approx(12.5, abs=0.1)
    assert found.abs_error_pct == pytest.approx(100.0, abs=0.1)  # the order's own: 8 of 4 kWh
    assert [(one.order, one.seller) for one in found.orders] == [("ord_1", "org_sunrise_homes")]
    assert found.orders[0].settled_kwh == pytest.approx(2 * 2.0 * 2)  # two contracts, two hours


def test_statement_lines_that_name_their_order_are_settled_by_order(
    day: Planned, undisturbed: Path
) -> None:
    said = report(day, "org_voltfleet_cars", 1, Direction.UP)
    for line in said["statement"]:
        line["order"] = "ord_1"
    found = verdict(day, said, undisturbed, undisturbed)
    assert found.orders[0].settled_kwh == pytest.approx(4.5)
    assert found.delivered_kwh == 0.0
    assert found.error_pct is None
    assert found.abs_error_pct is None


def test_only_meters_of_bids_that_won_count(
    day: Planned, undisturbed: Path, tmp_path: Path
) -> None:
    span = day.scenario.market.event(Direction.UP).interval
    dear = day.scenario.sites[2].id
    truth = moved(undisturbed, tmp_path / "t", dear, span, 5.0)
    said = report(day, "org_campus_garage", 2, Direction.UP)
    assert verdict(day, said, truth, undisturbed).delivered_kwh == pytest.approx(0.0, abs=1e-9)
    prices = [
        str(bid.price) for bid in day.scenario.bids if dear.replace("dev", "ast") in bid.assets
    ]
    said["awards"] = [{"order": "ord_1", "price": prices[0], "accepted": True}]
    assert verdict(day, said, truth, undisturbed).delivered_kwh == pytest.approx(10.0, abs=1e-3)


def flag(fault: Any, kind: str | None = None, after: timedelta = timedelta(0)) -> Report:
    return {
        "device": fault.device, "kind": kind or fault.kind.value,
        "at": (fault.at + after).isoformat(), "after_intervals": 1.5,
    }  # fmt: skip


def test_flags_are_matched_by_device_kind_and_time(day: Planned, undisturbed: Path) -> None:
    faults = day.world.faults
    lasts = faults[0].until - faults[0].at
    said = report(day, "org_voltfleet_cars", 1, Direction.UP)
    said["flags"] = [
        flag(faults[0], after=lasts + timedelta(minutes=9)),
        flag(faults[0]),
        flag(faults[1], after=timedelta(minutes=-1)),
        flag(faults[2], kind="clamps" if faults[2].kind.value != "clamps" else "ignores"),
        flag(faults[3], after=faults[3].until - faults[3].at + timedelta(minutes=11)),
    ]
    found = verdict(day, said, undisturbed, undisturbed)
    assert len(found.injected) == 7
    assert found.injected[0].after_intervals == 0.0  # the first of its flags
    assert [one.device for one in found.misses] == [fault.device for fault in faults[1:]]
    assert [one.device for one in found.false_alarms] == [
        faults[1].device, faults[2].device, faults[3].device,
    ]  # fmt: skip


def test_errors_of_sellers_that_cancel_show_in_the_absolute_error(
    day: Planned, undisturbed: Path, tmp_path: Path
) -> None:
    home, fleet = day.scenario.homes[0].meter, day.scenario.fleets[0].id
    span = day.scenario.market.event(Direction.UP).interval
    truth = moved(undisturbed, tmp_path / "t", home, span, 2.0)
    truth = moved(truth, truth, fleet, span, 2.0)
    said = report(day, "org_sunrise_homes", 2, Direction.UP)
    said["windows"] += report(day, "org_voltfleet_cars", 1, Direction.UP)["windows"]
    said["statement"] = [
        {"order": "ord_1", "seller": seller, "quantity": kwh, "unit": "kWh"}
        for seller, kwh in (("org_sunrise_homes", "5"), ("org_voltfleet_cars", "3"))
    ]
    found = verdict(day, said, truth, undisturbed)
    assert found.error_pct == pytest.approx(0.0, abs=0.1)
    assert found.abs_error_pct == pytest.approx(25.0, abs=0.1)


@pytest.mark.parametrize("gone", ["orders", "windows", "statement", "flags"])
def test_a_report_that_lacks_something_is_refused_with_its_name(
    day: Planned, undisturbed: Path, gone: str
) -> None:
    said = report(day, "org_voltfleet_cars", 1, Direction.UP)
    del said[gone]
    with pytest.raises(ConfigError, match=gone):
        verdict(day, said, undisturbed, undisturbed)


def test_truth_that_does_not_cover_a_window_is_refused(
    day: Planned, undisturbed: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.jsonl"
    short.write_text("\n".join(undisturbed.read_text().splitlines()[:5000]) + "\n")
    said = report(day, "org_voltfleet_cars", 1, Direction.UP)
    with pytest.raises(ConfigError, match="dev_voltfleet_fleet"):
        verdict(day, said, short, undisturbed)


def test_the_command_writes_the_section(day: Planned, undisturbed: Path, tmp_path: Path) -> None:
    save(day.scenario, tmp_path / "scenario.json")
    save(day.world, tmp_path / "world.json")
    said = report(day, "org_voltfleet_cars", 1, Direction.DOWN)
    (tmp_path / "report.json").write_text(json.dumps(said))
    out = tmp_path / "truth_section.json"
    done = CliRunner().invoke(simulator, [
        "judge", "--scenario", str(tmp_path / "scenario.json"),
        "--world", str(tmp_path / "world.json"), "--report", str(tmp_path / "report.json"),
        "--truth", str(undisturbed), "--counterfactual", str(undisturbed), "--out", str(out),
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "7 faults, 7 missed, 0 false alarms" in done.output
    section = msgspec.json.decode(out.read_bytes())
    assert len(section["injected"]) == len(section["misses"]) == 7
    assert set(section["misses"][0]) == {"device", "fault", "at", "until"}
