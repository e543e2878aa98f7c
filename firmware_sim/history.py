"""The meter history before the simulation starts, as an aggregator would hand it in."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from firmware_sim.dataset import HOUR, HomeHours, read_homes, read_sessions
from firmware_sim.devices.car import Stay
from firmware_sim.planning import charger_stays, site_stays
from firmware_sim.scenario import Home, MarketDay, Scenario

COLUMNS = ("series", "start_utc", "seconds", "power_kw")
_QUARTER = timedelta(minutes=15)


class Row(NamedTuple):
    """Mean power of one series over a span, injection positive."""

    series: str
    start: datetime
    seconds: int
    power_kw: float


def rows(scenario: Scenario, data: Path) -> Iterator[Row]:
    """Every meter series from the start of the history to the start of the simulation.

    Batteries idle throughout and nobody limits a car. Hours missing from the data are
    missing here.
    """
    market = scenario.market
    homes = read_homes(data) if scenario.homes else {}
    for home in scenario.homes:
        yield from _home_rows(market, home, homes[home.data_home])
    sessions = read_sessions(data)
    for charger in scenario.chargers:
        stays = charger_stays(market, charger, sessions)
        yield from _stay_rows(market, charger.id, stays, charger.rate_kw)
    for site in scenario.sites:
        stays = site_stays(market, site, sessions)
        yield from _stay_rows(market, site.id, stays, site.rate_kw)


def write(scenario: Scenario, data: Path, out: Path) -> int:
    """Write the history as CSV and return the number of rows."""
    count = 0
    with out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows(scenario, data):
            start = row.start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            writer.writerow((row.series, start, row.seconds, f"{row.power_kw:.4f}"))
            count += 1
    return count


def _home_rows(market: MarketDay, home: Home, data: HomeHours) -> Iterator[Row]:
    """Hourly; an hour that the start of the simulation cuts keeps its mean."""
    for start, load, pv in zip(data.starts, data.load_kw, data.pv_kw, strict=True):
        if market.history_start <= start < market.sim_start:
            end = min(start + HOUR, market.sim_start)
            yield Row(home.meter, start, int((end - start).total_seconds()), pv - load)


def _stay_rows(
    market: MarketDay, series: str, stays: Sequence[Stay], rate_kw: float
) -> Iterator[Row]:
    """Quarter-hourly, from the energy that each car has charged at each boundary."""
    count = (market.sim_start - market.history_start) // _QUARTER
    energy = [0.0] * count
    for one in stays:
        first = max(0, (one.arrival - market.history_start) // _QUARTER)
        last = (one.unmanaged_end(rate_kw) - market.history_start) // _QUARTER
        for index in range(first, min(count - 1, last) + 1):
            start = market.history_start + index * _QUARTER
            after = one.unmanaged_kwh(start + _QUARTER, rate_kw)
            energy[index] += after - one.unmanaged_kwh(start, rate_kw)
    hours = _QUARTER / HOUR
    for index, kwh in enumerate(energy):
        start = market.history_start + index * _QUARTER
        yield Row(series, start, int(_QUARTER.total_seconds()), 0.0 - kwh / hours)
