"""Chooses charging stations, and weeks of theirs, whose cars have something to give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta

import msgspec
import numpy as np

from firmware_sim.dataset import Session
from firmware_sim.devices.car import STATION_KW, Stay
from firmware_sim.scenario import MarketDay
from firmware_sim.stays import landings, less_kw, more_kw, moved, weeks_to
from firmware_sim.world import Station
from marketplace_core.errors import ConfigError
from marketplace_core.units import Direction

_LEAST_KW = 0.3
"""A station with less to give than this in an event is not chosen for it."""
_PLENTY_KW = 1.0
"""Stations with this much to give are chosen first, by chance among each other."""


class Choice(msgspec.Struct, frozen=True):
    """One station on one real day, and what its cars could give on the simulated one."""

    station: Station
    up_kw: float
    down_kw: float

    def kw(self, direction: Direction) -> float:
        """What it could give in a direction."""
        return self.up_kw if direction is Direction.UP else self.down_kw


def choose(
    market: MarketDay,
    sessions: Sequence[Session],
    rng: np.random.Generator,
    count: int | None,
    *,
    most: int,
) -> list[Choice]:
    """Stations for the UP event (these come first), at most half of all, and for the DOWN event.

    `count` None = as many as the data can fill, up to `most`.
    Raises: ConfigError with the number that the data can fill.
    """
    every = candidates(market, sessions)
    order = rng.permutation(len(every)).tolist()
    shuffled = [every[index] for index in order]
    wanted = most if count is None else count
    up = _best(shuffled, Direction.UP)[: wanted // 2]
    taken = {one.station for one in up}
    rest = [one for one in shuffled if one.station not in taken]
    found = [*up, *_best(rest, Direction.DOWN)[: wanted - len(up)]]
    if count is not None and len(found) < count:
        msg = (
            f"the data hold {len(found)} stations whose cars have something to give in the events "
            f"of such a day, not {count}: use --chargers {len(found)}"
        )
        raise ConfigError(msg)
    return found


def candidates(market: MarketDay, sessions: Sequence[Session]) -> list[Choice]:
    """Every station on every real day that could be this one."""
    day = date.fromisoformat(market.day)
    by_day: defaultdict[date, list[Session]] = defaultdict(list)
    for session in sessions:
        by_day[session.arrival.date()].append(session)
    found = []
    for landing in landings(sessions, day, market.timezone):
        weeks = weeks_to(day, landing)
        near = [one for shift in (-1, 0, 1) for one in by_day[landing + timedelta(days=shift)]]
        stations: dict[str, list[Stay]] = {}
        for one in near:
            stays = moved([one], weeks, market.timezone, market.sim_start, market.sim_end)
            stations.setdefault(one.station, []).extend(stays)
        for name, own in stations.items():
            choice = _choice(market, Station(station=name, weeks=weeks), apart(own))
            if max(choice.up_kw, choice.down_kw) >= _LEAST_KW:
                found.append(choice)
    return found


def station_stays(
    market: MarketDay, station: Station, sessions: Sequence[Session]
) -> tuple[Stay, ...]:
    """All cars of one station from the start of the history to the end of the simulation."""
    own = [one for one in sessions if one.station == station.station]
    return apart(moved(own, station.weeks, market.timezone, market.history_start, market.sim_end))


def apart(stays: Sequence[Stay]) -> tuple[Stay, ...]:
    """Stays by arrival, without those that the next car's arrival shows to be wrong."""
    return tuple(
        one
        for index, one in enumerate(stays)
        if index == len(stays) - 1 or one.departure <= stays[index + 1].arrival
    )


def _choice(market: MarketDay, station: Station, stays: Sequence[Stay]) -> Choice:
    """A station serves one event: a car that is filled at midday has less to give later."""
    up = market.event(Direction.UP).interval
    down = market.event(Direction.DOWN).interval
    less = less_kw(stays, STATION_KW, up.start, up.end)
    if less >= _LEAST_KW:
        return Choice(station, less, 0.0)
    return Choice(station, 0.0, more_kw(stays, STATION_KW, down.start, down.end))


def _best(choices: Sequence[Choice], direction: Direction) -> list[Choice]:
    """Those with plenty first, each station once before any comes twice."""
    able = [one for one in choices if one.kw(direction) >= _LEAST_KW]
    able.sort(key=lambda one: one.kw(direction) < _PLENTY_KW)
    seen: set[str] = set()
    first: list[Choice] = []
    again: list[Choice] = []
    for one in able:
        (again if one.station.station in seen else first).append(one)
        seen.add(one.station.station)
    return first + again
