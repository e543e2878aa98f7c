"""`flexway demo --data`: the whole day holds with more homes than are shipped, and with fewer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.made_up_homes import write_data
from tests.harness.played_day import play

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(1000)]


@pytest.mark.parametrize(("homes", "seed"), [(30, 7), (4, 1)])
def test_every_check_holds_with_as_many_homes_as_the_files_have(
    tmp_path: Path, homes: int, seed: int
) -> None:
    data = write_data(tmp_path / "data", homes)
    day = play(tmp_path / "report", "--seed", str(seed), "--data", str(data))
    assert day.code == 0, day.output
    assert day.report["seed"] == seed
    assert [name for name, held in day.report["checks"].items() if held is not True] == []
    batteries = {row["device"] for row in day.powers if row["device"].endswith("_battery")}
    assert len(batteries) == homes
    assert day.missed() == day.false_alarms() == []
