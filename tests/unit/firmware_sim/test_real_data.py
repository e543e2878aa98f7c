"""Reading the real data: what is shipped, and errors that say file, line and field."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from firmware_sim.dataset import read_homes, read_sessions, shipped
from marketplace_core.errors import ConfigError, RecordError

HOMES = "home,period_start_utc,load_kw,pv_kw,outdoor_temp_c\n"
SESSIONS = (
    "site,station,arrival_utc,departure_utc,estimated_departure_utc,requested_kwh,delivered_kwh\n"
)


def put(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_bytes(gzip.compress(text.encode()))
    return folder


def test_shipped_homes_hold_a_summer_of_twelve_homes_without_a_gap() -> None:
    homes = read_homes(shipped())
    assert len(homes) == 12
    for home in homes.values():
        assert len(home.starts) == 92 * 24
        assert (home.starts[-1] - home.starts[0]).total_seconds() == (92 * 24 - 1) * 3600
        assert home.rated_pv_kw in {4.0, 5.0}


def test_a_shipped_hour_has_its_published_value() -> None:
    home = read_homes(shipped())["fontana-01"]
    at = datetime(2017, 7, 21, 0, 59, 59, tzinfo=UTC)
    assert home.at(at) == (3.6361, 1.2404)


def test_an_hour_outside_the_data_is_named() -> None:
    home = read_homes(shipped())["fontana-01"]
    with pytest.raises(ConfigError, match=r"fontana-01 have no hour at 2018-01-01"):
        home.at(datetime(2018, 1, 1, tzinfo=UTC))


def test_shipped_sessions_are_all_there_in_order() -> None:
    sessions = read_sessions(shipped())
    assert len(sessions) == 6704
    assert [s.arrival for s in sessions] == sorted(s.arrival for s in sessions)
    assert sessions[0].station == "caltech/CA-305"
    assert sessions[0].energy_kwh == 44.069


def test_homes_of_several_files_are_joined(tmp_path: Path) -> None:
    put(tmp_path, "homes_a.csv.gz", HOMES + "h1,2017-07-01T00:00:00Z,1,2,20\n")
    put(tmp_path, "homes_b.csv.gz", HOMES + "h1,2017-07-01T01:00:00Z,3,4,20\nh2,2017-07-01T01:00:00Z,5,6,\n")  # fmt: skip  # noqa: E501
    homes = read_homes(tmp_path)
    assert homes["h1"].load_kw == (1.0, 3.0)
    assert homes["h2"].pv_kw == (6.0,)


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ("h1,2017-07-01T01:00:00,1,2,20", "period_start_utc", "no instant with an offset"),
        ("h1,2017-07-01T01:00:00Z,one,2,20", "load_kw", "is no number"),
        ("h1,2017-07-01T01:00:00Z,nan,2,20", "load_kw", "not a finite number"),
        ("h1,2017-07-01T01:00:00Z,1,-2,20", "pv_kw", "not a finite number of 0 or more"),
        (",2017-07-01T01:00:00Z,1,2,20", "home", "is empty"),
        ("h1,2017-07-01T01:00:00Z,1", "pv_kw", "is empty"),
        ("h1,2017-07-01T00:00:00Z,1,2,20", "period_start_utc", "has this hour already"),
    ],
)
def test_a_wrong_home_row_says_file_line_and_field(
    tmp_path: Path, row: str, field: str, problem: str
) -> None:
    put(tmp_path, "homes.csv.gz", f"{HOMES}h1,2017-07-01T00:00:00Z,1,2,20\n{row}\n")
    with pytest.raises(RecordError, match=problem) as caught:
        read_homes(tmp_path)
    assert (caught.value.line, caught.value.field) == (3, field)
    assert f"homes.csv.gz, line 3, field {field}" in str(caught.value)


def test_a_session_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    row = "c,CA-1,2019-05-01T10:00:00Z,2019-05-01T09:00:00Z,,1,1\n"
    put(tmp_path, "ev_sessions.csv.gz", SESSIONS + row)
    with pytest.raises(RecordError, match=r"ev_sessions.csv.gz, line 2, field departure_utc"):
        read_sessions(tmp_path)


def test_a_folder_without_files_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no homes\*.csv.gz in .*--data"):
        read_homes(tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    put(tmp_path, "homes.csv.gz", "home,period_start_utc,load_kw\n")
    with pytest.raises(ConfigError, match="column pv_kw is missing"):
        read_homes(tmp_path)


# Named by hand: a gzip header holds the time, and pytest would make it part of the name.
@pytest.mark.parametrize(
    "content",
    [b"not gzip", gzip.compress(b"home,\xff\xfe")[:-3]],
    ids=["not gzip", "cut off"],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "homes.csv.gz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"homes.csv.gz cannot be read"):
        read_homes(tmp_path)
