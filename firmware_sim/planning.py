"""Makes a scenario, and the world behind it, from the real data and a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from firmware_sim import bidding, market_entry
from firmware_sim.car_parks import HISTORY_DAYS, choose_weeks, usual_load_kw
from firmware_sim.dataset import DataSet, Session
from firmware_sim.devices.car import STATION_KW
from firmware_sim.faults import Exposed, draw, draw_incidents
from firmware_sim.home_choice import choose_homes, distinct, slug, usual_pv_kw
from firmware_sim.market_entry import Flexible
from firmware_sim.randomness import stream
from firmware_sim.scenario import (
    VERSION,
    CarPark,
    Charger,
    Fleet,
    Home,
    MarketDay,
    MarketEvent,
    Scenario,
)
from firmware_sim.station_choice import Choice, choose
from firmware_sim.world import World
from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.units import Direction

FLEET_ID = "dev_voltfleet_fleet"
USUAL_CHARGERS = 40
_TENTHS_IN_FLEET = 3
"""Of ten chargers, so many are behind a backend of their own."""
_STATIONS_PER_WEEK = 54


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What scenario is wanted."""

    seed: int = 1
    homes: int | None = None
    """None = all that the data hold."""
    chargers: int | None = None
    """None = all that the data can fill, up to `USUAL_CHARGERS`."""
    sites: int = 3
    day: str = "2017-07-20"
    timezone: str = "America/Los_Angeles"
    grid_minutes: int = 15


class Planned(NamedTuple):
    """The two halves of a day."""

    scenario: Scenario
    world: World


def plan(request: Request, data: DataSet) -> Planned:
    """A scenario and its world, the same for the same request and data.

    Raises: ConfigError when the data cannot fill it, RecordError for a bad line.
    """
    market = market_day(request)
    sessions = data.sessions
    hours = data.homes if request.homes != 0 else {}
    rng = stream(request.seed, "homes")
    homes, secrets = choose_homes(market, hours, request.homes, rng)
    stations = _stations(request, market, sessions)
    weeks = _sites(request, market, sessions)
    flexible = Flexible(
        pv_kw={home.id: usual_pv_kw(market, hours[secrets[home.id].data_home]) for home in homes},
        chargers={name: choice for name, choice in stations if name},
        fleet=[choice for name, choice in stations if not name],
        site_load_kw=usual_load_kw(market, weeks, sessions),
    )
    scenario = _scenario(market, homes, weeks, flexible)
    world = World(
        version=VERSION,
        seed=request.seed,
        data=str(data.folder.resolve()),
        homes=secrets,
        stations={name: choice.station for name, choice in stations if name},
        fleets={one.id: tuple(c.station for c in flexible.fleet) for one in scenario.fleets},
        sites=weeks,
        faults=(),
    )
    return _disturbed(scenario, world, flexible)


def market_day(request: Request) -> MarketDay:
    """The day's instants: run 10:00 to 20:30, DOWN 12:00 to 14:00, UP 17:00 to 19:00, local."""
    day = date.fromisoformat(request.day)
    zone = ZoneInfo(request.timezone)

    def at(hour: int, minute: int = 0) -> datetime:
        return datetime.combine(day, time(hour, minute), zone).astimezone(ZoneInfo("UTC"))

    grid = SettlementGrid(request.grid_minutes, request.timezone)
    return MarketDay(
        day=request.day,
        timezone=request.timezone,
        grid_minutes=request.grid_minutes,
        feeder="F-114",
        currency="USD",
        history_start=grid.days_before(at(0), HISTORY_DAYS),
        sim_start=at(10),
        events=(
            MarketEvent(name="midday", direction=Direction.DOWN, interval=Interval(at(12), at(14))),
            MarketEvent(name="evening", direction=Direction.UP, interval=Interval(at(17), at(19))),
        ),
        sim_end=at(20, 30),
    )


def _stations(
    request: Request, market: MarketDay, sessions: Sequence[Session]
) -> list[tuple[str, Choice]]:
    """Charger id (empty behind the backend) and station of every charger."""
    rng = stream(request.seed, "chargers")
    every = choose(market, sessions, rng, request.chargers, most=USUAL_CHARGERS)
    behind = len(every) * _TENTHS_IN_FLEET // 10
    used: dict[str, int] = {}
    found = []
    for index, choice in enumerate(every):
        # every so many of them, so that both events get their part of the backend's cars
        if (index + 1) * behind // len(every) > index * behind // len(every):
            found.append(("", choice))
            continue
        found.append((f"dev_charger_{distinct(slug(choice.station.station), used)}", choice))
    return sorted(found, key=lambda one: (one[0], one[1].station.station, one[1].station.weeks))


def _sites(
    request: Request, market: MarketDay, sessions: Sequence[Session]
) -> dict[str, tuple[int, ...]]:
    weeks = choose_weeks(market, sessions, request.sites, stream(request.seed, "sites"))
    return {f"dev_campus_garage_{number}": each for number, each in enumerate(weeks, start=1)}


def _scenario(
    market: MarketDay,
    homes: tuple[Home, ...],
    weeks: Mapping[str, Sequence[int]],
    flexible: Flexible,
) -> Scenario:
    chargers = tuple(
        Charger(id=name, seller=market_entry.HOMES, rate_kw=STATION_KW)
        for name in flexible.chargers
    )
    count = len(flexible.fleet)
    fleet = Fleet(id=FLEET_ID, seller=market_entry.CARS, stations=count, rate_kw=STATION_KW)
    fleets = (fleet,) if count else ()
    sites = tuple(
        CarPark(
            id=name,
            seller=market_entry.SITES,
            rate_kw=STATION_KW,
            capacity_kw=round(_STATIONS_PER_WEEK * len(each) * STATION_KW, 1),
            ven_name=name.removeprefix("dev_").replace("_", "-"),
        )
        for name, each in weeks.items()
    )
    assets = market_entry.assets(market, (homes, chargers, fleets, sites), flexible)
    bids = bidding.bids(market, assets)
    return Scenario(
        version=VERSION,
        market=market,
        sellers=market_entry.sellers(assets),
        homes=homes,
        chargers=chargers,
        fleets=fleets,
        sites=sites,
        profiles=market_entry.profiles((homes, chargers, fleets, sites)),
        assets=assets,
        needs=bidding.needs(market, bids),
        bids=bids,
        incidents=(),
    )


def _disturbed(scenario: Scenario, world: World, flexible: Flexible) -> Planned:
    """Add what goes wrong on the day: public incidents, and faults that nobody knows of."""
    market = scenario.market
    incidents = draw_incidents(market, stream(world.seed, "incidents"))
    exposed = Exposed(
        batteries=tuple(home.battery for home in scenario.homes),
        chargers={
            event.name: tuple(
                name
                for name, choice in flexible.chargers.items()
                if choice.kw(event.direction) >= market_entry.LEAST_KW
            )
            for event in market.events
        },
        sites=tuple(one.id for one in scenario.sites[: bidding.SITES_THAT_CAN_WIN]),
    )
    faults = draw(market, exposed, incidents, stream(world.seed, "faults"))
    return Planned(
        msgspec.structs.replace(scenario, incidents=incidents),
        msgspec.structs.replace(world, faults=faults),
    )
