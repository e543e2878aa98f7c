"""`flexway auction`, called as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import flexway


def bid(name: str, kw: list[float], price: float, **fields: Any) -> dict[str, Any]:
    return {
        "id": name, "seller": f"s-{name}", "kw": kw, "min_kw": 0, "divisible": False,
        "price_per_mwh": [price] * len(kw), "exclusive_group": None, "requires": [],
        **fields,
    }  # fmt: skip


def document(**fields: Any) -> dict[str, Any]:
    return {
        "pricing": "pay_as_bid", "need_kw": [10, 10], "hours": [0.5, 0.5], "max_share": None,
        "price_cap": None, "bids": [bid("a", [10, 10], 100), bid("b", [10, 10], 90)], **fields,
    }  # fmt: skip


def solve(folder: Path, content: object, *more: str) -> tuple[Result, Path]:
    file, out = folder / "instance.json", folder / "result.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    command = ["auction", "solve", str(file), "--out", str(out), *more]
    return CliRunner().invoke(flexway, command), out


def test_a_result_has_exactly_the_stated_fields(tmp_path: Path) -> None:
    ran, out = solve(tmp_path, document(), "--details", str(tmp_path / "more.json"))
    assert ran.exit_code == 0, ran.output
    result = json.loads(out.read_text())
    assert list(result) == ["objective", "unmet_kw", "awards", "rejected", "gap"]
    assert result["awards"] == [{"bid": "b", "kw": [10, 10], "pay": 0.9}]
    assert (result["objective"], result["unmet_kw"], result["gap"]) == (0.9, [0, 0], 0)
    assert [each["bid"] for each in result["rejected"]] == ["a"]
    more = json.loads((tmp_path / "more.json").read_text())
    assert more["unmet_proven"]
    assert more["comparison"]["objective"] == 0.9
    assert ran.stdout == ""
    assert "proven least" in ran.stderr


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pricing": "dutch"}, "pricing: pricing is 'dutch'"),
        ({"hours": [0.5]}, "hours: 1 numbers for 2 windows"),
        ({"hours": [0.5, 0]}, "hours[1]"),
        ({"need_kw": [-1, 2]}, "need_kw[0]"),
        ({"max_share": 1.5}, "max_share: max_share is 1.5"),
        ({"max_sahre": 0.5}, "write max_share"),
        ({"bids": [bid("a", [1], 5)]}, "bids[0].kw: 1 numbers for 2 windows"),
        ({"bids": [bid("a", [1, True], 5)]}, "bids[0].kw[1]: kw[1] is True"),
        ({"bids": [bid("a", [1, 1], 5), bid("a", [1, 1], 5)]}, "is the id of bids[0] too"),
        ({"bids": [bid("a", [1, 1], 5, divisible="yes")]}, "bids[0].divisible"),
        ({"bids": [bid("a", [1, 1], 5, requires="b")]}, "bids[0].requires"),
        ({"bids": 7}, "bids: bids is missing or no list"),
    ],
)
def test_a_malformed_instance_is_refused_by_field_rule_and_remedy(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    ran, out = solve(tmp_path, document(**fields))
    assert ran.exit_code == 1
    assert words in ran.stderr
    assert "; rule: " in ran.stderr
    assert not out.exists()


@pytest.mark.parametrize("content", ["{", '{"need_kw": [NaN]}', "[]"])
def test_what_is_no_instance_is_said(tmp_path: Path, content: str) -> None:
    ran, _ = solve(tmp_path, content)
    assert ran.exit_code == 1
    assert "JSON" in ran.stderr


def test_an_unknown_field_is_passed_over_and_said(tmp_path: Path) -> None:
    ran, _ = solve(tmp_path, document(comment="weekly"))
    assert ran.exit_code == 0
    assert "passed over, no such field: comment" in ran.stderr


def test_a_result_is_verified_and_a_changed_one_is_not(tmp_path: Path) -> None:
    _, out = solve(tmp_path, document())
    command = ["auction", "verify", str(tmp_path / "instance.json"), str(out)]
    assert CliRunner().invoke(flexway, command).exit_code == 0
    result = json.loads(out.read_text())
    result["awards"][0] = {"bid": "a", "kw": [10, 10], "pay": 1.0}
    result["rejected"][0]["bid"] = "b"
    result["objective"] = 1.0
    out.write_text(json.dumps(result))
    ran = CliRunner().invoke(flexway, command)
    assert ran.exit_code == 1
    assert "no less than 1 was claimed to be possible, 0.9 is" in ran.output


def test_the_greedy_method_certifies_nothing(tmp_path: Path) -> None:
    ran, out = solve(tmp_path, document(), "--method", "greedy")
    assert ran.exit_code == 0
    assert json.loads(out.read_text())["gap"] is None
    again = ["auction", "verify", str(tmp_path / "instance.json"), str(out), "--method", "greedy"]
    assert CliRunner().invoke(flexway, again).exit_code == 0
