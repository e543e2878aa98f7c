"""The history: complete, importable, what the day goes on from, and wrong only on request."""

from __future__ import annotations

import csv
from collections import defaultdict
from datetime import timedelta
from pathlib import Path

import pytest

from firmware_sim import history
from firmware_sim.car_parks import site_stays
from firmware_sim.counterfactual import minutes
from firmware_sim.planning import Planned
from firmware_sim.station_choice import station_stays
from marketplace_core.errors import ConfigError, RecordError
from marketplace_core.verification.bulk import parse_readings
from marketplace_core.verification.reading import Reading
from tests.harness.days import DATA


@pytest.fixture(scope="module")
def rows(small_day: Planned) -> list[history.Row]:
    return list(history.rows(*small_day, DATA))


def test_history_passes_the_bulk_import_without_an_error(
    small_day: Planned, tmp_path: Path
) -> None:
    count = history.write(*small_day, DATA, tmp_path / "h.csv")
    lines = (tmp_path / "h.csv").read_text().splitlines()
    parsed = list(parse_readings(lines, small_day.scenario.series()))
    assert len(parsed) == count
    assert all(isinstance(one, Reading) for one in parsed)


def test_a_row_that_is_spoiled_on_request_is_refused_by_line_and_field(
    small_day: Planned, tmp_path: Path
) -> None:
    history.write(*small_day, DATA, tmp_path / "h.csv", spoil=77)
    lines = (tmp_path / "h.csv").read_text().splitlines()
    parsed = list(parse_readings(lines, small_day.scenario.series()))
    wrong = [one for one in parsed if isinstance(one, RecordError)]
    assert [(one.line, one.field) for one in wrong] == [(77, "seconds")]
    assert "'quarter'" in str(wrong[0])


@pytest.mark.parametrize("line", [1, 10**7])
def test_a_line_that_is_not_there_cannot_be_spoiled(
    small_day: Planned, tmp_path: Path, line: int
) -> None:
    with pytest.raises(ConfigError, match=f"line {line} cannot be spoiled"):
        history.write(*small_day, DATA, tmp_path / "h.csv", spoil=line)


def test_history_runs_without_gap_or_overlap_up_to_the_simulation(
    small_day: Planned, rows: list[history.Row]
) -> None:
    market = small_day.scenario.market
    series: dict[str, list[history.Row]] = defaultdict(list)
    for row in rows:
        series[row.series].append(row)
    assert set(series) == set(small_day.scenario.series())
    assert "dev_voltfleet_fleet" in series
    for own in series.values():
        assert own[0].start == market.history_start
        ends = [row.start + timedelta(seconds=row.seconds) for row in own]
        assert ends[:-1] == [row.start for row in own[1:]]
        assert ends[-1] == market.sim_start


def test_home_history_is_generation_less_load_of_the_data(
    small_day: Planned, rows: list[history.Row]
) -> None:
    homes = DATA.homes
    home = small_day.scenario.homes[0]
    data = homes[small_day.world.homes[home.id].data_home]
    for row in rows[:200]:
        load, pv = data.at(row.start)
        assert row.power_kw == pytest.approx(pv - load)


def test_history_holds_every_kilowatt_hour_of_its_sessions(
    small_day: Planned, rows: list[history.Row]
) -> None:
    scenario, world = small_day
    market, sessions = scenario.market, DATA.sessions
    park, charger = scenario.sites[0], scenario.chargers[0]
    cars = {
        park.id: site_stays(market, world.sites[park.id], sessions, market.history_start),
        charger.id: station_stays(market, world.stations[charger.id], sessions),
    }
    for name, stays in cars.items():
        expected = 0.0
        for stay in stays:
            kw = park.rate_kw if name == park.id else stay.spread_kw(charger.rate_kw)
            expected += stay.unmanaged_kwh(market.sim_start, kw)
            expected -= stay.unmanaged_kwh(market.history_start, kw)
        metered = -sum(row.power_kw * row.seconds / 3600 for row in rows if row.series == name)
        assert expected > 50
        assert metered == pytest.approx(expected, rel=1e-9)
        assert all(row.power_kw <= 0 for row in rows if row.series == name)


def test_history_is_plain_utc_csv(small_day: Planned, tmp_path: Path) -> None:
    history.write(*small_day, DATA, tmp_path / "h.csv")
    with (tmp_path / "h.csv").open(newline="") as stream:
        first = next(iter(csv.DictReader(stream)))
    assert list(first) == ["series", "start_utc", "seconds", "power_kw"]
    assert first["start_utc"] == "2017-05-18T07:00:00Z"


def test_a_meter_in_the_simulation_goes_on_where_its_history_ended(
    small_day: Planned, rows: list[history.Row]
) -> None:
    last = {row.series: row.power_kw for row in rows}
    first = {one.series: one.power_kw for one in next(minutes(*small_day, DATA))}
    homes = DATA.homes
    for home in small_day.scenario.homes:
        data = homes[small_day.world.homes[home.id].data_home]
        load, pv = data.at(small_day.scenario.market.sim_start)
        assert first[home.meter] == pytest.approx(pv - load, abs=1e-6)
    for name in ("dev_voltfleet_fleet", *(one.id for one in small_day.scenario.chargers)):
        assert first[name] == pytest.approx(last[name], abs=0.3)
