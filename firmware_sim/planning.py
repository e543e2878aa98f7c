"""Makes a scenario from the real data and a seed."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from firmware_sim import market_entry as entry
from firmware_sim.dataset import HomeHours, Session, read_homes, read_sessions
from firmware_sim.devices.battery import BatterySpec
from firmware_sim.devices.car import STATION_KW, Stay
from firmware_sim.scenario import VERSION, CarPark, Charger, Home, MarketDay, Scenario
from firmware_sim.stays import flexible_kw, landings, load_kw, moved, weeks_to
from marketplace_core.errors import ConfigError
from marketplace_core.intervals import Interval, SettlementGrid

_HISTORY_DAYS = 63
"""Nine weeks: more than the longest look-back of a baseline that the market knows for loads."""
_WEEKS_PER_SITE = 8
_WEEKS_APART = 3
"""Weeks side by side in one car park share no session within the ten weekdays before the day."""
_QUARTER_H = 0.25
_PEAK_SHARE = 0.5
"""A landing day with less than this share of the median sessions is a campus holiday."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What scenario is wanted."""

    seed: int = 1
    homes: int = 3
    chargers: int = 4
    sites: int = 1
    day: str = "2017-07-20"
    timezone: str = "America/Los_Angeles"
    grid_minutes: int = 15


def plan(request: Request, data: Path) -> Scenario:
    """A scenario, the same for the same request and data.

    Raises: ConfigError when the data cannot fill it, RecordError for a bad line.
    """
    market = market_day(request)
    sessions = read_sessions(data)
    homes = _homes(request, market, read_homes(data)) if request.homes else ()
    chargers = _chargers(request, market, sessions)
    sites = _sites(request, market, sessions)
    assets = entry.assets(
        market, homes, chargers, sites, _site_flexibility(market, sites, sessions)
    )
    bids = entry.bids(assets)
    return Scenario(
        version=VERSION,
        seed=request.seed,
        data=str(data.resolve()),
        market=market,
        sellers=entry.sellers(assets),
        homes=homes,
        chargers=chargers,
        sites=sites,
        profiles=entry.profiles(homes, chargers, sites),
        assets=assets,
        need=entry.need(bids),
        bids=bids,
    )


def market_day(request: Request) -> MarketDay:
    """The day's instants: run 16:30 to 18:30, event 17:00 to 18:00, all local."""
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
        history_start=grid.days_before(at(0), _HISTORY_DAYS),
        sim_start=at(16, 30),
        event=Interval(at(17), at(18)),
        sim_end=at(18, 30),
    )


def randomness(seed: int, label: str) -> np.random.Generator:
    """An independent stream of the scenario's seed for one purpose."""
    return np.random.default_rng([seed, zlib.crc32(label.encode())])


def _homes(request: Request, market: MarketDay, data: dict[str, HomeHours]) -> tuple[Home, ...]:
    if request.homes > len(data):
        msg = f"the data hold {len(data)} homes, not {request.homes}: use --homes {len(data)}"
        raise ConfigError(msg)
    rng = randomness(request.seed, "homes")
    chosen = sorted(rng.permutation(sorted(data))[: request.homes].tolist())
    spec = BatterySpec()
    homes = []
    for name in chosen:
        data[name].at(market.sim_start)
        slug = _slug(name)
        homes.append(
            Home(
                id=f"home_{slug}",
                seller=entry.HOMES,
                data_home=name,
                battery=f"dev_{slug}_battery",
                inverter=f"dev_{slug}_inverter",
                meter=f"dev_{slug}_meter",
                battery_spec=spec,
                stored_kwh=round(float(rng.uniform(0.90, 0.98)) * spec.capacity_kwh, 3),
                rated_pv_kw=data[name].rated_pv_kw,
            )
        )
    return tuple(homes)


class _Candidate(msgspec.Struct, frozen=True):
    """One station on one real day that could be a charger of the scenario."""

    station: str
    weeks: int
    score: tuple[float, float]
    """Quarter hours charged from the hour before the event on; hours of slack afterwards."""
    flexible_kw: float


def _chargers(
    request: Request, market: MarketDay, sessions: Sequence[Session]
) -> tuple[Charger, ...]:
    candidates = _candidates(market, sessions)
    if len(candidates) < request.chargers:
        msg = (
            f"the data hold {len(candidates)} stations that charge on such a day during the "
            f"event, not {request.chargers}: use --chargers {len(candidates)}"
        )
        raise ConfigError(msg)
    order = randomness(request.seed, "chargers").permutation(len(candidates)).tolist()
    ranked = sorted((candidates[i] for i in order), key=lambda one: one.score, reverse=True)
    chosen = _distinct_first(ranked)[: request.chargers]
    used: set[str] = set()
    chargers = []
    for one in sorted(chosen, key=lambda one: (one.station, one.weeks)):
        device = f"dev_charger_{_slug(one.station)}"
        device = device if device not in used else f"{device}_w{-one.weeks}"
        used.add(device)
        chargers.append(
            Charger(
                id=device,
                seller=entry.CARS,
                station=one.station,
                weeks=one.weeks,
                rate_kw=STATION_KW,
                flexible_kw=round(one.flexible_kw, 2),
            )
        )
    return tuple(chargers)


def _candidates(market: MarketDay, sessions: Sequence[Session]) -> list[_Candidate]:
    day, event = date.fromisoformat(market.day), market.event
    found = []
    for landing in landings(sessions, day, market.timezone):
        weeks = weeks_to(day, landing)
        stations: dict[str, list[Stay]] = {}
        for one in sessions:
            if abs((one.arrival.date() - landing).days) <= 1:
                stays = moved([one], weeks, market.timezone, market.sim_start, event.end)
                stations.setdefault(one.station, []).extend(stays)
        found += [
            _candidate(station, weeks, stays, event) for station, stays in stations.items() if stays
        ]
    return [one for one in found if one is not None]


def _candidate(station: str, weeks: int, stays: list[Stay], event: Interval) -> _Candidate | None:
    """A station whose only car charges through some of the event; else None."""
    if len(stays) != 1:
        return None
    car = stays[0]
    during = load_kw(stays, STATION_KW, event.start, event.end)
    before = load_kw(stays, STATION_KW, event.start - timedelta(hours=1), event.start)
    if during <= 0:
        return None
    quarters = (before + during) / STATION_KW // _QUARTER_H
    slack = (car.departure - car.unmanaged_end(STATION_KW)).total_seconds() / 3600.0
    flexible = flexible_kw(car, STATION_KW, event.start, event.end)
    return _Candidate(station, weeks, (quarters, min(slack, 2.0) // 0.5), flexible)


def _distinct_first(ranked: list[_Candidate]) -> list[_Candidate]:
    """The best day of every station, then the rest."""
    seen: set[str] = set()
    first: list[_Candidate] = []
    rest: list[_Candidate] = []
    for one in ranked:
        (rest if one.station in seen else first).append(one)
        seen.add(one.station)
    return first + rest


def _sites(request: Request, market: MarketDay, sessions: Sequence[Session]) -> tuple[CarPark, ...]:
    if not request.sites:
        return ()
    weeks = _full_weeks(market, sessions)
    if not weeks:
        msg = "the charging sessions cover no day like this one with its history before it"
        raise ConfigError(msg)
    rng = randomness(request.seed, "sites")
    starts = rng.permutation(_WEEKS_APART).tolist()
    return tuple(
        CarPark(
            id=f"dev_campus_garage_{number + 1}",
            seller=entry.SITES,
            weeks=_spread(weeks, starts[number % _WEEKS_APART] + number // _WEEKS_APART),
            rate_kw=STATION_KW,
            ven_name=f"campus-garage-{number + 1}",
        )
        for number in range(request.sites)
    )


def _full_weeks(market: MarketDay, sessions: Sequence[Session]) -> tuple[int, ...]:
    """Weeks by which the data can be moved and still cover the whole history, holidays left out."""
    day, zone = date.fromisoformat(market.day), ZoneInfo(market.timezone)
    every = landings(sessions, day, market.timezone)
    covered = [one for one in every if (one - every[0]).days >= _HISTORY_DAYS] or list(every)
    counts = dict.fromkeys(covered, 0)
    for session in sessions:
        local = session.arrival.astimezone(zone).date()
        if local in counts:
            counts[local] += 1
    usual = float(np.median(list(counts.values()))) if counts else 0.0
    return tuple(weeks_to(day, one) for one in covered if counts[one] >= _PEAK_SHARE * usual)


def _spread(weeks: tuple[int, ...], start: int) -> tuple[int, ...]:
    """Weeks at least `_WEEKS_APART` from each other, beginning at one of the first."""
    chosen: list[int] = []
    for one in weeks[start % len(weeks) :]:
        if not chosen or abs(one - chosen[-1]) >= _WEEKS_APART:
            chosen.append(one)
    return tuple(chosen[:_WEEKS_PER_SITE])


def _site_flexibility(
    market: MarketDay, sites: Sequence[CarPark], sessions: Sequence[Session]
) -> dict[str, float]:
    """Mean load of each site in the event's hour over the ten weekdays before, in kW."""
    grid = SettlementGrid(market.grid_minutes, market.timezone)
    loads = {}
    for site in sites:
        stays = site_stays(market, site, sessions)
        figures: list[float] = []
        back = 0
        while len(figures) < 10:  # noqa: PLR2004 - as the CAISO baseline counts days
            back += 1
            start = grid.days_before(market.event.start, back)
            if start.astimezone(ZoneInfo(market.timezone)).weekday() < 5:  # noqa: PLR2004 - Friday
                end = start + market.event.duration
                figures.append(load_kw(stays, site.rate_kw, start, end))
        loads[site.id] = math.fsum(figures) / len(figures)
    return loads


def site_stays(market: MarketDay, site: CarPark, sessions: Sequence[Session]) -> tuple[Stay, ...]:
    """All cars of a car park from the start of the history to the end of the simulation."""
    stays = [
        one
        for weeks in site.weeks
        for one in moved(sessions, weeks, market.timezone, market.history_start, market.sim_end)
    ]
    return tuple(sorted(stays, key=lambda one: (one.arrival, one.departure)))


def charger_stays(
    market: MarketDay, charger: Charger, sessions: Sequence[Session]
) -> tuple[Stay, ...]:
    """All cars of one station over the same span; two never overlap."""
    own = [one for one in sessions if one.station == charger.station]
    stays = moved(own, charger.weeks, market.timezone, market.history_start, market.sim_end)
    return tuple(
        one
        for index, one in enumerate(stays)
        if index == len(stays) - 1 or one.departure <= stays[index + 1].arrival
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower().rsplit("/", 1)[-1]).strip("_")
