"""The scenario: deterministic, real, moved by whole weeks, and good for a market."""

from __future__ import annotations

import itertools
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from firmware_sim.car_parks import site_stays
from firmware_sim.home_choice import choose_homes, distinct, slug
from firmware_sim.planning import Planned, Request, market_day, plan
from firmware_sim.randomness import stream
from firmware_sim.scenario import Scenario, load, save
from firmware_sim.station_choice import station_stays
from firmware_sim.stays import less_kw, more_kw
from firmware_sim.world import load_world
from marketplace_core.dispatch.bounds import unusable
from marketplace_core.dispatch.planner import DeviceState
from marketplace_core.dispatch.profile import ControlKind
from marketplace_core.errors import ConfigError
from marketplace_core.procurement.bid import Bid, Clearing
from marketplace_core.procurement.clearing import clear
from marketplace_core.procurement.need import Need
from marketplace_core.registry.rules import validate_assets
from marketplace_core.units import Direction, Kw
from tests.harness.days import DATA

ZONE = ZoneInfo("America/Los_Angeles")
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module", params=SEEDS)
def any_day(request: pytest.FixtureRequest) -> Planned:
    return plan(Request(seed=request.param), DATA)


def test_the_same_seed_gives_the_same_day_and_another_seed_another(day: Planned) -> None:
    assert plan(Request(seed=1), DATA) == day
    other = plan(Request(seed=2), DATA)
    assert other.world.stations != day.world.stations
    assert other.world.faults != day.world.faults


def test_both_halves_survive_their_files(day: Planned, tmp_path: Path) -> None:
    save(day.scenario, tmp_path / "scenario.json")
    save(day.world, tmp_path / "world.json")
    assert load(tmp_path / "scenario.json") == day.scenario
    assert load_world(tmp_path / "world.json") == day.world


def test_the_public_half_says_nothing_of_seed_faults_data_or_what_batteries_hold(
    day: Planned,
) -> None:
    public = json.loads(msgspec.json.encode(day.scenario))

    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for inner in value.values() for key in keys(inner)}
        if isinstance(value, list):
            return {key for inner in value for key in keys(inner)}
        return set()

    private = {"seed", "faults", "data", "data_home", "stored_kwh", "station", "weeks"}
    assert not keys(public) & private
    assert {each["kind"] for each in public["incidents"]} == {"uplink_lost", "gateway_killed"}


@pytest.mark.parametrize("reader", [load, load_world])
def test_a_file_that_is_neither_half_is_named(tmp_path: Path, reader: object) -> None:
    (tmp_path / "x.json").write_text('{"version": 2}')
    with pytest.raises(ConfigError, match=r"x.json is no (scenario|world)"):
        reader(tmp_path / "x.json")  # type: ignore[operator]


def test_halves_of_another_version_are_refused(day: Planned, tmp_path: Path) -> None:
    save(msgspec.structs.replace(day.scenario, version=99), tmp_path / "s.json")
    save(msgspec.structs.replace(day.world, version=99), tmp_path / "w.json")
    with pytest.raises(ConfigError, match="version 99"):
        load(tmp_path / "s.json")
    with pytest.raises(ConfigError, match="version 99"):
        load_world(tmp_path / "w.json")


def test_the_day_is_a_thursday_with_an_event_at_noon_and_one_at_five(day: Planned) -> None:
    market = day.scenario.market
    local = [
        (event.direction, event.interval.start.astimezone(ZONE).isoformat(), event.interval.hours)
        for event in market.events
    ]
    assert local == [
        (Direction.DOWN, "2017-07-20T12:00:00-07:00", 2.0),
        (Direction.UP, "2017-07-20T17:00:00-07:00", 2.0),
    ]
    assert market.sim_start.astimezone(ZONE).isoformat() == "2017-07-20T10:00:00-07:00"
    assert market.sim_end.astimezone(ZONE).isoformat() == "2017-07-20T20:30:00-07:00"
    assert market.sim_start - market.history_start > timedelta(days=60)


def test_three_aggregators_own_what_is_theirs(any_day: Planned) -> None:
    scenario = any_day.scenario
    owned = {
        seller.id: [a for a in scenario.assets if a.organisation == seller.id]
        for seller in scenario.sellers
    }
    assert {name: len(assets) for name, assets in owned.items()} == {
        "org_sunrise_homes": 12 + 28, "org_voltfleet_cars": 1, "org_campus_garage": 3,
    }  # fmt: skip
    for seller, own in owned.items():
        validate_assets(seller, own)
    driven = [device for asset in scenario.assets for device in asset.devices]
    assert len(driven) == len(set(driven)) == 12 * 2 + 28 + 1 + 3
    assert set(scenario.protocols()) == {*driven, *(home.meter for home in scenario.homes)}


def test_every_device_can_be_dispatched_unattended(any_day: Planned) -> None:
    scenario = any_day.scenario
    profiles = {profile.device_id: profile for profile in scenario.profiles}
    for asset in scenario.assets:
        for device in asset.devices:
            profile = profiles[device]
            state = DeviceState(profile=profile, reference_kw=profile.min_kw, soc_kwh=1.0)
            assert unusable(state) == ""
            assert profile.protocol == scenario.protocols()[device]


def test_the_sun_is_curtailed_last_and_stations_take_setpoints(day: Planned) -> None:
    profiles = {profile.device_id: profile for profile in day.scenario.profiles}
    for home in day.scenario.homes:
        assert profiles[home.battery].tier < profiles[home.inverter].tier
        assert profiles[home.inverter].control is ControlKind.LIMIT
    for one in (*day.scenario.chargers, *day.scenario.fleets):
        assert profiles[one.id].control is ControlKind.SETPOINT
        assert profiles[one.id].max_kw == 0.0
    fleet = profiles["dev_voltfleet_fleet"]
    assert (fleet.min_kw, fleet.notice_s, fleet.telemetry_s) == (-79.2, 600.0, 60.0)


def clearing(scenario: Scenario, direction: Direction) -> Clearing:
    """The auction of one event, by the market's own rule."""
    event = scenario.market.event(direction)
    wanted = next(need for need in scenario.needs if need.event == event.name)
    need = Need(
        id="need", buyer=wanted.buyer, feeder="F-114", direction=direction, kw=Kw(wanted.kw),
        window=event.interval, price_cap=wanted.price_cap, currency="USD",
        baseline=wanted.baseline, allowed_baselines=wanted.allowed_baselines,
    )  # fmt: skip
    bids = [
        Bid(
            id=f"bid_{number}", need_id="need", seller=bid.seller, assets=bid.assets,
            kw=Kw(bid.kw), utilisation_price=bid.price, divisible=bid.divisible,
            min_kw=Kw(bid.min_kw), baseline=bid.baseline,
        )
        for number, bid in enumerate(scenario.bids)
        if bid.event == event.name
    ]  # fmt: skip
    assert all(bid.baseline in (need.baseline, *need.allowed_baselines) for bid in bids)
    return clear(need, bids)


def test_the_evening_auction_fits_the_indivisible_bid_cuts_the_last_and_refuses_the_dear_one(
    any_day: Planned,
) -> None:
    result = clearing(any_day.scenario, Direction.UP)
    reasons = [award.reason for award in result.awards]
    assert [award.seller for award in result.awards] == [
        "org_sunrise_homes", "org_voltfleet_cars", "org_sunrise_homes", "org_campus_garage",
        "org_campus_garage", "org_campus_garage",
    ]  # fmt: skip
    assert all("in full" in reason for reason in reasons[:4])
    assert "cut to" in reasons[4]
    assert "above the price cap 400" in reasons[5]
    assert result.unmet_kw == 0.0


def test_the_midday_auction_cuts_the_last_of_three(any_day: Planned) -> None:
    result = clearing(any_day.scenario, Direction.DOWN)
    assert ["cut to" in award.reason for award in result.awards] == [False, False, True]
    assert result.unmet_kw == 0.0


def test_bids_are_within_what_the_assets_are_registered_for(any_day: Planned) -> None:
    scenario = any_day.scenario
    assets = {asset.id: asset for asset in scenario.assets}
    up = scenario.market.event(Direction.UP).name
    for bid in scenario.bids:
        own = [assets[name] for name in bid.assets]
        registered = sum(one.up_kw if bid.event == up else one.down_kw for one in own)
        assert 0 < bid.kw <= registered + 1e-9
        assert {one.organisation for one in own} == {bid.seller}
        assert len({one.measurement_point for one in own}) == 1
        assert bid.min_kw <= bid.kw


def test_the_homes_promise_what_their_batteries_hold_and_no_more(any_day: Planned) -> None:
    scenario = any_day.scenario
    evening = next(bid for bid in scenario.bids if not bid.divisible)
    hours = scenario.market.event(Direction.UP).interval.hours
    surely = sum(
        home.battery_spec.deliverable_kwh(0.85 * home.battery_spec.capacity_kwh)
        for home in scenario.homes
    )
    assert evening.kw * hours <= surely
    assert evening.kw < 38
    assert evening.price < Decimal(400)
    for home in scenario.homes:
        share = any_day.world.homes[home.id].stored_kwh / home.battery_spec.capacity_kwh
        assert 0.25 <= share <= 0.40


def test_sessions_are_real_ones_moved_by_whole_weeks(day: Planned) -> None:
    sessions = DATA.sessions
    real = {(s.arrival.astimezone(ZONE).replace(tzinfo=None), s.energy_kwh) for s in sessions}
    stations = [*day.world.stations.values(), *day.world.fleets["dev_voltfleet_fleet"]]
    assert len(stations) == len(set(stations)) == 40
    for station in stations:
        stays = station_stays(day.scenario.market, station, sessions)
        assert stays
        assert all(a.departure <= b.arrival for a, b in itertools.pairwise(stays))
        for stay in stays:
            local = stay.arrival.astimezone(ZONE).replace(tzinfo=None)
            assert (local - timedelta(weeks=station.weeks), stay.energy_kwh) in real


def test_every_station_serves_an_event_and_some_serve_the_evening(any_day: Planned) -> None:
    sessions, market = DATA.sessions, any_day.scenario.market
    stations = [*any_day.world.stations.values(), *any_day.world.fleets["dev_voltfleet_fleet"]]
    up, down = market.event(Direction.UP).interval, market.event(Direction.DOWN).interval
    useful = {Direction.UP: 0, Direction.DOWN: 0}
    for station in stations:
        stays = station_stays(market, station, sessions)
        less = less_kw(stays, 6.6, up.start, up.end)
        more = more_kw(stays, 6.6, down.start, down.end)
        assert max(less, more) >= 0.3
        useful[Direction.UP if less >= 0.3 else Direction.DOWN] += 1
    assert useful[Direction.UP] >= 10
    assert useful[Direction.DOWN] >= 20


def test_weeks_side_by_side_in_a_car_park_are_three_apart(day: Planned) -> None:
    every = list(day.world.sites.values())
    assert len(set(every)) == 3
    for weeks in every:
        assert len(weeks) >= 6
        assert all(b - a >= 3 for a, b in itertools.pairwise(sorted(weeks)))
    market = day.scenario.market
    assert site_stays(market, every[0], DATA.sessions, market.sim_start)


def test_more_homes_than_the_data_hold_are_refused_with_the_number() -> None:
    with pytest.raises(ConfigError, match="use --homes 12"):
        plan(Request(homes=13), DATA)


def test_more_chargers_than_the_data_can_fill_are_refused_with_the_number() -> None:
    with pytest.raises(ConfigError, match="use --chargers"):
        plan(Request(chargers=5000), DATA)


@pytest.mark.parametrize(
    ("counts", "protocols"),
    [
        ({"homes": 1, "chargers": 0, "sites": 0}, {"modbus"}),
        ({"homes": 0, "chargers": 2, "sites": 0}, {"mqtt"}),
        ({"homes": 0, "chargers": 0, "sites": 1}, {"openadr"}),
        ({"homes": 0, "chargers": 4, "sites": 0}, {"mqtt", "webhook"}),
        ({"homes": 0, "chargers": 0, "sites": 0}, set()),
    ],
)
def test_a_day_may_lack_any_kind_of_device(counts: dict[str, int], protocols: set[str]) -> None:
    scenario, world = plan(Request(**counts), DATA)
    assert set(scenario.protocols().values()) == protocols
    assert {fault.device for fault in world.faults} <= set(scenario.protocols())


def test_homes_of_one_name_in_two_places_are_two_homes() -> None:
    (one, other), secrets = choose_homes(
        market_day(Request()),
        dict.fromkeys(("east/Home 1", "west/home-1"), DATA.homes["fontana-01"]),
        None,
        stream(1, "homes"),
    )
    assert {one.id, other.id} == {"home_home_1", "home_home_1_2"} == set(secrets)


def test_names_of_devices_never_collide() -> None:
    used: dict[str, int] = {}
    names = [distinct(name, used) for name in ("a", "a", "a_2", "a", slug("\u5bb6"))]
    assert len(set(names)) == len(names)
    assert names[:2] == ["a", "a_2"]
