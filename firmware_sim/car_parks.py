"""Car parks: several real weeks of one campus side by side behind one connection."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import numpy as np

from firmware_sim.dataset import Session
from firmware_sim.devices.car import STATION_KW, Stay
from firmware_sim.scenario import MarketDay
from firmware_sim.stays import landings, load_kw, moved, weeks_to
from marketplace_core.errors import ConfigError
from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.units import Direction

HISTORY_DAYS = 63
"""Nine weeks: more than the longest look-back of a baseline that the market knows for loads."""
LIKE_DAYS = 10
"""Weekdays before the day over which usual power is averaged, as the CAISO baseline counts."""
_WEEKS_PER_SITE = 8
_WEEKS_APART = 3
"""Weeks side by side in one car park share no session within the ten weekdays before the day."""
_PEAK_SHARE = 0.5
"""A landing day with less than this share of the median sessions is a campus holiday."""
_FRIDAY = 4


def choose_weeks(
    market: MarketDay, sessions: Sequence[Session], count: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Weeks of `count` car parks. Raises ConfigError when the data cover no such day."""
    if not count:
        return []
    weeks = _full_weeks(market, sessions)
    if not weeks:
        msg = "the charging sessions cover no day like this one with its history before it"
        raise ConfigError(msg)
    starts = rng.permutation(_WEEKS_APART).tolist()
    return [
        _spread(weeks, starts[number % _WEEKS_APART] + number // _WEEKS_APART)
        for number in range(count)
    ]


def site_stays(
    market: MarketDay, weeks: Sequence[int], sessions: Sequence[Session], start: datetime
) -> tuple[Stay, ...]:
    """All cars of a car park that are there after `start`, to the end of the simulation."""
    stays = [
        one
        for each in weeks
        for one in moved(sessions, each, market.timezone, start, market.sim_end)
    ]
    return tuple(sorted(stays, key=lambda one: (one.arrival, one.departure)))


def usual_load_kw(
    market: MarketDay, sites: Mapping[str, Sequence[int]], sessions: Sequence[Session]
) -> dict[str, float]:
    """Mean load of each site in the UP event's hours over the like days before, in kW."""
    spans = like_days(market, market.event(Direction.UP).interval)
    loads = {}
    for name, weeks in sites.items():
        stays = site_stays(market, weeks, sessions, spans[-1].start)
        figures = [load_kw(stays, STATION_KW, span.start, span.end) for span in spans]
        loads[name] = math.fsum(figures) / len(figures)
    return loads


def like_days(market: MarketDay, span: Interval) -> list[Interval]:
    """The same hours of the ten weekdays before, the most recent first."""
    return list(islice(_weekdays_before(market, span), LIKE_DAYS))


def _weekdays_before(market: MarketDay, span: Interval) -> Iterator[Interval]:
    grid, zone = SettlementGrid(market.grid_minutes, market.timezone), ZoneInfo(market.timezone)
    for back in range(1, HISTORY_DAYS):
        start = grid.days_before(span.start, back)
        if start.astimezone(zone).weekday() <= _FRIDAY:
            yield Interval(start, start + span.duration)


def _full_weeks(market: MarketDay, sessions: Sequence[Session]) -> tuple[int, ...]:
    """Weeks by which the data can be moved and still cover the whole history, holidays left out."""
    day, zone = date.fromisoformat(market.day), ZoneInfo(market.timezone)
    every = landings(sessions, day, market.timezone)
    covered = [one for one in every if (one - every[0]).days >= HISTORY_DAYS] or list(every)
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
