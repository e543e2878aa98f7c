"""Chooses homes of the data, and sees that they cover the day."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from firmware_sim import market_entry
from firmware_sim.car_parks import like_days
from firmware_sim.dataset import HomeHours
from firmware_sim.devices.battery import BatterySpec
from firmware_sim.scenario import Home, MarketDay
from firmware_sim.world import HomeSecrets
from marketplace_core.errors import ConfigError
from marketplace_core.units import Direction

_STORED_SHARE = (0.25, 0.40)
"""What a battery holds when the day begins, as a share of its capacity."""
_HISTORY = timedelta(days=14)
"""Ten weekdays, and four days of a weekend: what a baseline of like days looks back on."""
_STEP = timedelta(minutes=15)
_DAY = timedelta(days=1)
_FRIDAY = 4


def choose_homes(
    market: MarketDay, data: Mapping[str, HomeHours], wanted: int | None, rng: np.random.Generator
) -> tuple[tuple[Home, ...], dict[str, HomeSecrets]]:
    """As many homes as are wanted (None = all), and what is behind them.

    Raises: ConfigError when there are fewer, or when one does not cover the day.
    """
    count = len(data) if wanted is None else wanted
    if count > len(data):
        msg = f"the data hold {len(data)} homes, not {count}: use --homes {len(data)}"
        raise ConfigError(msg)
    chosen = sorted(rng.permutation(sorted(data))[:count].tolist())
    _check_day(market, {name: data[name] for name in chosen})
    spec = BatterySpec()
    homes, secrets, used = [], {}, dict[str, int]()
    for name in chosen:
        own = distinct(slug(name), used)
        home = Home(
            id=f"home_{own}",
            seller=market_entry.HOMES,
            battery=f"dev_{own}_battery",
            inverter=f"dev_{own}_inverter",
            meter=f"dev_{own}_meter",
            battery_spec=spec,
            rated_pv_kw=data[name].rated_pv_kw,
        )
        stored = round(float(rng.uniform(*_STORED_SHARE)) * spec.capacity_kwh, 3)
        secrets[home.id] = HomeSecrets(data_home=name, stored_kwh=stored)
        homes.append(home)
    return tuple(homes), secrets


def usual_pv_kw(market: MarketDay, data: HomeHours) -> float:
    """Mean generation in the DOWN event's hours over the like days before; gaps count nothing."""
    spans = like_days(market, market.event(Direction.DOWN).interval)
    first, last = spans[-1].start, spans[0].end
    figures = [
        pv
        for start, pv in zip(data.starts, data.pv_kw, strict=True)
        if first <= start < last and any(span.contains(start) for span in spans)
    ]
    return math.fsum(figures) / (len(spans) * spans[0].hours)


def slug(name: str) -> str:
    """The last part of a name, as it may stand in an id."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().rsplit("/", 1)[-1]).strip("_") or "unnamed"


def distinct(name: str, used: dict[str, int]) -> str:
    """A name that nobody had yet: the second of a name gets `_2`; notes it in `used`."""
    number = used.get(name, 0) + 1
    while number > 1 and f"{name}_{number}" in used:
        number += 1
    used[name] = number
    found = f"{name}_{number}" if number > 1 else name
    used.setdefault(found, 1)
    return found


def _check_day(market: MarketDay, homes: Mapping[str, HomeHours]) -> None:
    start, end = market.sim_start, market.sim_end
    gaps = {name: _gap(home, start, end) for name, home in homes.items()}
    name = next((each for each, gap in gaps.items() if gap is not None), None)
    if name is None:
        return
    covered = next(_covered(market, homes), None)
    remedy = (
        "the homes of these files have no day in common with two weeks before it: "
        "name other files with --data"
        if covered is None
        else f"play a day that all homes cover, such as --day {covered.isoformat()}"
    )
    gap = gaps[name]
    when = gap.isoformat() if gap is not None else ""
    msg = f"the data of {name} have no hour at {when}, which --day {market.day} needs: {remedy}"
    raise ConfigError(msg)


def _gap(home: HomeHours, start: datetime, end: datetime) -> datetime | None:
    """The first instant of a day, or of the beginning of its history, that a home lacks."""
    if not home.starts or home.starts[0] > start - _HISTORY:
        return start - _HISTORY
    steps = (start + index * _STEP for index in range((end - start) // _STEP))
    return next((at for at in steps if not home.covers(at)), None)


def _covered(market: MarketDay, homes: Mapping[str, HomeHours]) -> Iterator[date]:
    """Weekdays that every home covers, the latest first."""
    zone = ZoneInfo(market.timezone)
    first = max(home.starts[0] for home in homes.values()).astimezone(zone).date()
    day = min(home.starts[-1] for home in homes.values()).astimezone(zone).date()
    starts = market.sim_start.astimezone(zone).time()
    while day > first:
        start = datetime.combine(day, starts, zone).astimezone(market.sim_start.tzinfo)
        end = start + (market.sim_end - market.sim_start)
        if day.weekday() <= _FRIDAY and not any(_gap(home, start, end) for home in homes.values()):
            yield day
        day -= _DAY
