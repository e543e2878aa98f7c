"""The line that `make days` says of a day."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.days import is_clean
from tests.harness.played_day import Played


@pytest.mark.parametrize(("share", "said"), [(None, "-"), (-7.26, "-7.3 %")])
def test_a_day_in_which_nothing_was_delivered_has_a_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float | None, said: str
) -> None:
    absolute = None if share is None else -share
    truth = {"error_pct": share, "abs_error_pct": absolute}
    (tmp_path / "report.json").write_text(
        json.dumps({"checks": {"it ends": True}, "flags": [], "truth": truth})
    )
    (tmp_path / "truth.jsonl").write_text("")
    assert is_clean(3, Played(0, "", tmp_path))
    assert f" {said} " in capsys.readouterr().out
