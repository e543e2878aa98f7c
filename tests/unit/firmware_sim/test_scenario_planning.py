"""The scenario: deterministic, real, moved by whole weeks, and good for a market."""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from firmware_sim import history
from firmware_sim.dataset import read_homes, read_sessions, shipped
from firmware_sim.planning import Request, charger_stays, plan, site_stays
from firmware_sim.plant import Minutes, Plant
from firmware_sim.scenario import Scenario, load, save, step_for
from marketplace_core.dispatch.bounds import unusable
from marketplace_core.dispatch.planner import DeviceState
from marketplace_core.errors import ConfigError
from marketplace_core.registry.rules import validate_assets
from marketplace_core.verification.bulk import parse_readings
from marketplace_core.verification.reading import Reading

ZONE = ZoneInfo("America/Los_Angeles")


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return plan(Request(seed=1), shipped())


@pytest.fixture(scope="module")
def rows(scenario: Scenario) -> list[history.Row]:
    return list(history.rows(scenario, shipped()))


def test_the_same_seed_gives_the_same_scenario_and_another_seed_another(
    scenario: Scenario,
) -> None:
    assert plan(Request(seed=1), shipped()) == scenario
    others = [plan(Request(seed=seed), shipped()) for seed in (2, 3)]
    assert {tuple(h.data_home for h in one.homes) for one in (scenario, *others)} != {
        tuple(h.data_home for h in scenario.homes)
    }


def test_it_survives_the_file(scenario: Scenario, tmp_path: Path) -> None:
    save(scenario, tmp_path / "scenario.json")
    assert load(tmp_path / "scenario.json") == scenario


def test_a_file_that_is_no_scenario_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"version": 1}')
    with pytest.raises(ConfigError, match=r"x.json is no scenario"):
        load(tmp_path / "x.json")


def test_a_scenario_of_another_version_is_refused(scenario: Scenario, tmp_path: Path) -> None:
    save(msgspec.structs.replace(scenario, version=99), tmp_path / "x.json")
    with pytest.raises(ConfigError, match="version 99"):
        load(tmp_path / "x.json")


def test_the_day_is_a_thursday_with_the_event_at_five(scenario: Scenario) -> None:
    market = scenario.market
    assert market.event.start.astimezone(ZONE).isoformat() == "2017-07-20T17:00:00-07:00"
    assert market.event.start.astimezone(ZONE).weekday() == 3
    assert market.sim_start < market.event.start < market.event.end < market.sim_end
    assert market.sim_start - market.history_start > timedelta(days=60)


def test_sessions_are_real_ones_moved_by_whole_weeks(scenario: Scenario) -> None:
    sessions = read_sessions(shipped())
    real = {(s.arrival.astimezone(ZONE).replace(tzinfo=None), s.energy_kwh) for s in sessions}
    for charger in scenario.chargers:
        stays = charger_stays(scenario.market, charger, sessions)
        assert stays
        for stay in stays:
            local = stay.arrival.astimezone(ZONE).replace(tzinfo=None)
            assert (local - timedelta(weeks=charger.weeks), stay.energy_kwh) in real


def test_every_charger_of_the_spine_charges_from_sixteen_to_eighteen(scenario: Scenario) -> None:
    sessions, event = read_sessions(shipped()), scenario.market.event
    assert len(scenario.chargers) == 4
    for charger in scenario.chargers:
        stays = charger_stays(scenario.market, charger, sessions)
        during = [s for s in stays if s.plugged(event.start)]
        assert len(during) == 1
        assert during[0].arrival <= event.start - timedelta(minutes=60)
        assert during[0].unmanaged_end(charger.rate_kw) >= event.end


def test_cars_curtailed_to_their_declared_bound_still_leave_as_full(scenario: Scenario) -> None:
    plant = Plant(scenario, shipped())
    bounds = {p.device_id: p.max_kw for p in scenario.profiles if p.protocol == "mqtt"}
    event = scenario.market.event
    unserved: dict[str, float] = {}
    while plant.at < event.end + timedelta(hours=20):
        commands = bounds if event.contains(plant.at) else {}
        for moment in plant.step(plant.at + timedelta(seconds=60), commands):
            unserved[moment.device] = moment.unserved_kwh
            if event.contains(plant.at - timedelta(seconds=60)) and moment.device in bounds:
                assert moment.mean_kw >= bounds[moment.device] - 1e-9
    assert all(unserved[device] < 0.02 for device in bounds)


def test_two_cars_are_never_at_one_station_at_once(scenario: Scenario) -> None:
    sessions = read_sessions(shipped())
    for charger in scenario.chargers:
        stays = charger_stays(scenario.market, charger, sessions)
        assert all(a.departure <= b.arrival for a, b in itertools.pairwise(stays))


def test_weeks_side_by_side_in_a_car_park_are_three_apart(scenario: Scenario) -> None:
    weeks = sorted(scenario.sites[0].weeks)
    assert len(weeks) >= 6
    assert min(b - a for a, b in itertools.pairwise(weeks)) >= 3


def test_the_register_admits_every_asset_and_the_planner_can_use_every_device(
    scenario: Scenario,
) -> None:
    for seller in scenario.sellers:
        own = [asset for asset in scenario.assets if asset.organisation == seller.id]
        validate_assets(seller.id, own)
    driven = {device for asset in scenario.assets for device in asset.devices}
    profiles = {profile.device_id: profile for profile in scenario.profiles}
    assert driven <= set(profiles)
    for device in driven:
        state = DeviceState(
            profile=profiles[device], reference_kw=profiles[device].min_kw, soc_kwh=1.0
        )
        assert unusable(state) == ""


def test_bids_are_within_what_the_assets_are_registered_for(scenario: Scenario) -> None:
    assets = {asset.id: asset for asset in scenario.assets}
    for bid in scenario.bids:
        assert 0 < bid.kw <= sum(assets[name].up_kw for name in bid.assets) + 1e-9
        assert all(assets[name].organisation == bid.seller for name in bid.assets)
        assert bid.min_kw <= bid.kw
    assert 0 < scenario.need.kw < sum(bid.kw for bid in scenario.bids)


def test_more_homes_than_the_data_hold_are_refused_with_the_number() -> None:
    with pytest.raises(ConfigError, match="use --homes 12"):
        plan(Request(homes=13), shipped())


def test_more_chargers_than_the_data_hold_are_refused_with_the_number() -> None:
    with pytest.raises(ConfigError, match="use --chargers"):
        plan(Request(chargers=5000), shipped())


def test_the_evening_of_the_next_issue_fits_in_the_same_walls() -> None:
    wide = plan(Request(seed=3, homes=12, chargers=40, sites=3), shipped())
    names = [*wide.series(), *(p.device_id for p in wide.profiles)]
    assert len({*wide.series()}) == 12 + 40 + 3
    assert len(set(names)) == 12 * 3 + 40 + 3
    for seller in wide.sellers:
        validate_assets(seller.id, [a for a in wide.assets if a.organisation == seller.id])
    assert len({site.weeks for site in wide.sites}) == 3


def test_history_passes_the_bulk_import_without_an_error(
    scenario: Scenario, tmp_path: Path
) -> None:
    count = history.write(scenario, shipped(), tmp_path / "h.csv")
    lines = (tmp_path / "h.csv").read_text().splitlines()
    parsed = list(parse_readings(lines, scenario.series()))
    assert len(parsed) == count
    assert all(isinstance(one, Reading) for one in parsed)


def test_history_runs_without_gap_or_overlap_up_to_the_simulation(
    scenario: Scenario, rows: list[history.Row]
) -> None:
    series: dict[str, list[history.Row]] = defaultdict(list)
    for row in rows:
        series[row.series].append(row)
    assert set(series) == set(scenario.series())
    for own in series.values():
        assert own[0].start == scenario.market.history_start
        ends = [row.start + timedelta(seconds=row.seconds) for row in own]
        assert ends[:-1] == [row.start for row in own[1:]]
        assert ends[-1] == scenario.market.sim_start


def test_home_history_is_generation_less_load_of_the_data(
    scenario: Scenario, rows: list[history.Row]
) -> None:
    homes = read_homes(shipped())
    home = scenario.homes[0]
    for row in rows[:200]:
        load, pv = homes[home.data_home].at(row.start)
        assert row.power_kw == pytest.approx(pv - load)


def test_car_park_history_holds_every_kilowatt_hour_of_its_sessions(
    scenario: Scenario, rows: list[history.Row]
) -> None:
    market, park = scenario.market, scenario.sites[0]
    stays = site_stays(market, park, read_sessions(shipped()))
    expected = sum(
        stay.unmanaged_kwh(market.sim_start, park.rate_kw)
        - stay.unmanaged_kwh(market.history_start, park.rate_kw)
        for stay in stays
    )
    metered = -sum(row.power_kw * row.seconds / 3600 for row in rows if row.series == park.id)
    assert expected > 1000
    assert metered == pytest.approx(expected, rel=1e-9)
    assert all(row.power_kw <= 0 for row in rows if row.series == park.id)


def test_history_is_plain_utc_csv(scenario: Scenario, tmp_path: Path) -> None:
    history.write(scenario, shipped(), tmp_path / "h.csv")
    with (tmp_path / "h.csv").open(newline="") as stream:
        first = next(iter(csv.DictReader(stream)))
    assert list(first) == ["series", "start_utc", "seconds", "power_kw"]
    assert first["start_utc"] == "2017-05-18T07:00:00Z"


def run(scenario: Scenario, step_s: int, minutes: int) -> list[Reading]:
    plant = Plant(scenario, shipped())
    sums, seen = Minutes(plant.at), []
    for _ in range(minutes * 60 // step_s):
        since, time = plant.at, plant.at + timedelta(seconds=step_s)
        seen += sums.add(since, time, plant.step(time, {}))
    return seen


def test_a_meter_in_the_simulation_goes_on_where_its_history_ended(
    scenario: Scenario, rows: list[history.Row]
) -> None:
    last = {row.series: row.power_kw for row in rows}
    first = {r.series: r.power_kw for r in run(scenario, 10, 1)}
    for home in scenario.homes:
        assert first[home.meter] == pytest.approx(last[home.meter], abs=1e-6)
    for charger in scenario.chargers:
        assert first[charger.id] == pytest.approx(-charger.rate_kw)


def test_minute_readings_are_one_per_device_without_gap(scenario: Scenario) -> None:
    seen = run(scenario, 20, 5)
    devices = {*scenario.series(), *(p.device_id for p in scenario.profiles)}
    assert {r.series for r in seen} == devices
    for device in devices:
        own = [r for r in seen if r.series == device]
        assert [r.sequence for r in own] == list(range(5))
        assert all(r.seconds == 60 for r in own)


def test_what_devices_show_before_the_first_step_is_what_they_then_do(
    scenario: Scenario,
) -> None:
    plant = Plant(scenario, shipped())
    before = {moment.device: moment for moment in plant.still()}
    after = {m.device: m for m in plant.step(plant.at + timedelta(seconds=10), {})}
    assert set(before) == set(after)
    for device, moment in before.items():
        assert moment.power_kw == pytest.approx(after[device].power_kw)
        assert (moment.soc_kwh, moment.available) == (
            after[device].soc_kwh,
            after[device].available,
        )


def test_the_plant_repeats_itself_exactly(scenario: Scenario) -> None:
    assert run(scenario, 10, 3) == run(scenario, 10, 3)


def test_a_command_reaches_its_device_alone(scenario: Scenario) -> None:
    home = scenario.homes[0]
    plant = Plant(scenario, shipped())
    moments = {m.device: m for m in plant.step(plant.at + timedelta(seconds=60), {home.battery: 3})}
    assert moments[home.battery].power_kw == pytest.approx(3.0, abs=0.15)
    assert not moments[home.battery].fallback
    others = {h.battery for h in scenario.homes[1:]}
    assert all(moments[name].mean_kw == 0.0 and moments[name].fallback for name in others)


@pytest.mark.parametrize(("speed", "step"), [(1, 10), (180, 10), (300, 15), (600, 30), (1200, 60)])
def test_a_step_takes_at_least_fifty_milliseconds_and_fills_a_minute(speed: int, step: int) -> None:
    assert step_for(speed) == timedelta(seconds=step)


def test_a_speed_beyond_the_simulator_is_refused_with_the_highest() -> None:
    with pytest.raises(ConfigError, match="--speed 1200 or less"):
        step_for(1201)
