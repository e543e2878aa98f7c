"""`flexway demo --no-dispatch --lockstep`: the market is set up and nobody is called."""

from __future__ import annotations

import json

import pytest

from tests.harness.played_day import Played, play

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(1000)]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("none"), "--no-dispatch", "--keep")


def test_a_day_without_orders_ends_well(day: Played) -> None:
    assert day.code == 0, day.output
    checks = day.report["checks"]
    assert checks
    assert [name for name, held in checks.items() if held is not True] == []


def test_bids_are_accepted_and_nobody_is_called(day: Played) -> None:
    assert any(award["accepted"] for award in day.report["awards"])
    assert day.report["orders"] == []
    assert set(day.report["setpoints"].values()) == {0}


def test_nothing_is_owed_for_a_day_without_orders(day: Played) -> None:
    for section in ("windows", "rebound", "statement", "ledger"):
        assert day.report[section] == [], section


def test_devices_live_on_as_if_there_were_no_market(day: Played) -> None:
    """What the plant does without a gateway is reckoned apart: every device, every minute."""
    alone = day.folder / "run" / "counterfactual.jsonl"
    rows = [json.loads(line) for line in alone.read_text().splitlines()]
    assert len({row["at"] for row in rows}) >= 600
    assert any(abs(row["power_kw"]) > 1.0 for row in rows)
    assert day.powers == rows
