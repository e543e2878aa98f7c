"""The meter history before the simulation starts, as an aggregator would hand it in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from firmware_sim.car_parks import site_stays
from firmware_sim.dataset import HOUR, DataSet, HomeHours, Session
from firmware_sim.devices.car import Stay
from firmware_sim.scenario import MarketDay, Scenario
from firmware_sim.station_choice import station_stays
from firmware_sim.world import Station, World
from marketplace_core.errors import ConfigError

COLUMNS = ("series", "start_utc", "seconds", "power_kw")
SPOILED_SECONDS = "quarter"
"""What stands in the field `seconds` of a row that is spoiled on request."""
_QUARTER = timedelta(minutes=15)
Array = npt.NDArray[np.float64]


class Row(NamedTuple):
    """Mean power of one series over a span, injection positive."""

    series: str
    start: datetime
    seconds: int
    power_kw: float


def rows(scenario: Scenario, world: World, data: DataSet) -> Iterator[Row]:
    """Every meter series from the start of the history to the start of the simulation.

    Batteries idle throughout and nobody commands a car. Hours missing from the data are
    missing here.
    """
    market = scenario.market
    homes = data.homes if scenario.homes else {}
    for home in scenario.homes:
        yield from _home_rows(market, home.meter, homes[world.homes[home.id].data_home])
    sessions = data.sessions if len(scenario.homes) < len(scenario.series()) else ()
    for charger in scenario.chargers:
        kw = _station_kw(market, [world.stations[charger.id]], sessions, charger.rate_kw)
        yield from _quarters(market, charger.id, kw)
    for fleet in scenario.fleets:
        kw = _station_kw(market, world.fleets[fleet.id], sessions, fleet.rate_kw)
        yield from _quarters(market, fleet.id, kw)
    for site in scenario.sites:
        stays = site_stays(market, world.sites[site.id], sessions, market.history_start)
        kw = mean_kw(market, stays, [site.rate_kw] * len(stays))
        yield from _quarters(market, site.id, kw)


def write(
    scenario: Scenario, world: World, data: DataSet, out: Path, spoil: int | None = None
) -> int:
    """Write the history as CSV and return the number of rows.

    `spoil` names a line of the file (the header is line 1) whose seconds are to be no number.
    Raises: ConfigError when there is no such line.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    texts: dict[datetime, str] = {}  # every series has the same starts
    for row in rows(scenario, world, data):
        start = texts.get(row.start)
        if start is None:
            start = row.start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            texts[row.start] = start
        writer.writerow((row.series, start, row.seconds, f"{row.power_kw:.4f}"))
    lines = text.getvalue().splitlines(keepends=True)
    if spoil is not None:
        _spoil(lines, spoil)
    out.write_text("".join(lines), encoding="utf-8", newline="")
    return len(lines) - 1


def mean_kw(market: MarketDay, stays: Sequence[Stay], rates: Sequence[float]) -> Array:
    """Mean power of each quarter hour of the history: every car takes its own constant rate."""
    count = (market.sim_start - market.history_start) // _QUARTER
    bounds = np.arange(count + 1, dtype=np.float64) * _hours(_QUARTER)
    begin = market.history_start
    arrives = np.array([_hours(one.arrival - begin) for one in stays], np.float64)
    ends = np.array(
        [_hours(one.unmanaged_end(kw) - begin) for one, kw in zip(stays, rates, strict=True)],
        np.float64,
    )
    kw = np.array(rates, np.float64)
    energy = _ramps(bounds, arrives, kw) - _ramps(bounds, ends, kw)
    found: Array = np.minimum(0.0, -np.diff(energy) / _hours(_QUARTER))
    return found


def _ramps(bounds: Array, starts: Array, kw: Array) -> Array:
    """At each bound the energy of loads that began before it and never end."""
    order = np.argsort(starts, kind="stable")
    sorted_starts, sorted_kw = starts[order], kw[order]
    began = np.searchsorted(sorted_starts, bounds)
    power = np.concatenate([[0.0], np.cumsum(sorted_kw)])[began]
    moment = np.concatenate([[0.0], np.cumsum(sorted_kw * sorted_starts)])[began]
    found: Array = power * bounds - moment
    return found


def _station_kw(
    market: MarketDay, stations: Sequence[Station], sessions: Sequence[Session], rate_kw: float
) -> Array:
    stays = [one for each in stations for one in station_stays(market, each, sessions)]
    return mean_kw(market, stays, [one.spread_kw(rate_kw) for one in stays])


def _home_rows(market: MarketDay, meter: str, data: HomeHours) -> Iterator[Row]:
    """Hourly; an hour that the start of the simulation cuts keeps its mean."""
    for start, load, pv in zip(data.starts, data.load_kw, data.pv_kw, strict=True):
        if market.history_start <= start < market.sim_start:
            end = min(start + HOUR, market.sim_start)
            yield Row(meter, start, int((end - start).total_seconds()), pv - load)


def _quarters(market: MarketDay, series: str, kw: Array) -> Iterator[Row]:
    seconds = int(_QUARTER.total_seconds())
    for index, power in enumerate(kw.tolist()):
        yield Row(series, market.history_start + index * _QUARTER, seconds, 0.0 + power)


def _spoil(lines: list[str], number: int) -> None:
    if not 2 <= number <= len(lines):  # noqa: PLR2004 - below the header
        msg = f"the history has the lines 2 to {len(lines)}, so line {number} cannot be spoiled"
        raise ConfigError(msg)
    series, start, _, power = lines[number - 1].split(",")
    lines[number - 1] = f"{series},{start},{SPOILED_SECONDS},{power}"


def _hours(span: timedelta) -> float:
    return span / HOUR
