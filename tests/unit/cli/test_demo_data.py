"""`flexway demo --data`: a world as large as the data, planned as the demo plans it."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from firmware_sim.dataset import shipped
from gateway.cli.demo.command import DemoRun
from marketplace_core.errors import FlexwayError
from tests.harness.made_up_homes import write_data

pytestmark = pytest.mark.process
HOMES = ("fontana-02", "fontana-05", "fontana-08")
STATIONS = tuple(f"CA-{number}" for number in range(303, 317))
Json = dict[str, Any]


def keep(pattern: str, folder: Path, column: int, values: Collection[str]) -> None:
    """A shipped file with only the rows that have one of the values in a column."""
    (source,) = shipped().glob(pattern)
    with gzip.open(source, "rt") as shipped_rows, gzip.open(folder / source.name, "wt") as rows:
        head, *lines = shipped_rows
        rows.write(head)
        rows.writelines(line for line in lines if line.strip().split(",")[column] in values)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of a quarter of the homes and of the stations."""
    folder = tmp_path_factory.mktemp("data")
    keep("homes*.csv.gz", folder, 0, HOMES)
    keep("ev_sessions*.csv.gz", folder, 1, STATIONS)
    return folder


def planned(folder: Path, data: Path | None, **options: Any) -> Json:
    quiet = Console(quiet=True)
    run = DemoRun(folder, quiet, folder, seed=1, speed=180.0, data=data, **options)
    scenario = dict(run._plan())
    run._simulator.finish("history")
    return scenario


@pytest.fixture(scope="module")
def scenario(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """The day that the demo plans from them, with the folder that it is planned in."""
    folder = tmp_path_factory.mktemp("plan")
    return {"folder": folder, **planned(folder, small)}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """The day that the demo plans from what is shipped."""
    return planned(tmp_path_factory.mktemp("usual"), None)


def test_the_world_has_the_homes_and_stations_of_the_data_and_no_others(
    scenario: Json, usual: Json
) -> None:
    assert len(usual["homes"]) > len(scenario["homes"]) == len(HOMES)
    stations = {name.lower().replace("-", "_") for name in STATIONS}
    assert scenario["chargers"]
    for charger in scenario["chargers"]:
        assert charger["id"].removeprefix("dev_charger_")[: len("ca_303")] in stations


def test_every_asset_of_the_small_world_is_made_of_its_own_devices(scenario: Json) -> None:
    devices = {home[role] for home in scenario["homes"] for role in ("battery", "inverter")}
    devices |= {home["meter"] for home in scenario["homes"]}
    for kind in ("chargers", "fleets", "sites"):
        devices |= {one["id"] for one in scenario[kind]}
    for asset in scenario["assets"]:
        assert set(asset["devices"]) <= devices
        assert asset["meter"] in devices


def test_the_needs_of_the_small_world_are_smaller_and_its_bids_can_fill_them(
    scenario: Json, usual: Json
) -> None:
    for need, larger in zip(scenario["needs"], usual["needs"], strict=True):
        assert 0 < need["kw"] < larger["kw"]
        offered = [bid["kw"] for bid in scenario["bids"] if bid["event"] == need["event"]]
        assert sum(offered) >= need["kw"]


def test_the_meter_history_is_of_the_small_worlds_meters(scenario: Json) -> None:
    with (scenario["folder"] / "history.csv").open(newline="") as rows:
        series = {row["series"] for row in csv.DictReader(rows)}
    assert {home["meter"] for home in scenario["homes"]} <= series
    assert series <= {asset["meter"] for asset in scenario["assets"]} | {
        home["meter"] for home in scenario["homes"]
    }


@pytest.mark.parametrize("pattern", ["homes*.csv.gz", "ev_sessions*.csv.gz"])
def test_a_folder_that_lacks_a_file_is_refused_by_name(
    small: Path, tmp_path: Path, pattern: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in small.iterdir():
        if not file.match(pattern):
            (data / file.name).write_bytes(file.read_bytes())
    with pytest.raises(FlexwayError) as caught:
        planned(tmp_path, data)
    assert pattern.split("*", maxsplit=1)[0] in str(caught.value)


def test_a_bad_line_of_the_data_is_named(small: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in small.iterdir():
        rows = gzip.decompress(file.read_bytes()).decode().splitlines()
        if file.match("homes*"):
            home, at, *_ = rows[4].split(",")
            rows[4] = f"{home},{at},much,0.0,13.0"
        (data / file.name).write_bytes(gzip.compress("\n".join(rows).encode()))
    with pytest.raises(FlexwayError, match=r"(?s)line 5.*much|much.*line 5"):
        planned(tmp_path, data)


def test_more_homes_than_are_shipped_all_play_and_the_needs_grow_with_them(
    usual: Json, tmp_path: Path
) -> None:
    large = planned(tmp_path, write_data(tmp_path / "data", 30))
    assert len(usual["homes"]) == 12
    assert len(large["homes"]) == len({home["id"] for home in large["homes"]}) == 30
    for need, smaller in zip(large["needs"], usual["needs"], strict=True):
        offered = [bid for bid in large["bids"] if bid["event"] == need["event"]]
        assert smaller["kw"] < need["kw"] <= sum(bid["kw"] for bid in offered)
        home_bids = [bid for bid in offered if any("ast_home_" in one for one in bid["assets"])]
        assert len(home_bids[0]["assets"]) == 30


def test_homes_of_another_year_are_refused_with_a_day_that_can_be_played(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 2, weeks_later=52)
    with pytest.raises(FlexwayError, match=r"--day 2017-07-20.*--day 2018-07-30"):
        planned(tmp_path, data)
    other = planned(tmp_path, data, day=date(2018, 7, 30))
    assert other["market"]["day"] == "2018-07-30"
    assert len(other["homes"]) == 2


def test_homes_without_any_history_are_refused_with_what_is_needed(tmp_path: Path) -> None:
    keep("ev_sessions*.csv.gz", tmp_path, 1, STATIONS)
    hours = [f"short,2017-07-20T{hour:02d}:00:00Z,1.0,0.5,20" for hour in range(24)]
    text = "\n".join(["home,period_start_utc,load_kw,pv_kw,outdoor_temp_c", *hours])
    (tmp_path / "homes.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(FlexwayError, match="two weeks before it: name other files with --data"):
        planned(tmp_path, tmp_path)
