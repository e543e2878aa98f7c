"""Places real charging sessions on the simulated calendar, by whole weeks only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from firmware_sim.dataset import Session
from firmware_sim.devices.car import Stay, move_weeks, stay

_MARGIN = timedelta(days=1)
"""More than a clock change, by which civil time and the spans between instants differ."""


def moved(
    sessions: Iterable[Session], weeks: int, zone: str, start: datetime, end: datetime
) -> tuple[Stay, ...]:
    """Sessions moved by whole weeks that meet `[start, end)` afterwards, by arrival."""
    first = move_weeks(start, -weeks, zone) - _MARGIN
    last = move_weeks(end, -weeks, zone) + _MARGIN
    near = (one for one in sessions if one.arrival < last and one.departure > first)
    stays = (stay(one, weeks, zone) for one in near)
    kept = [one for one in stays if one.arrival < end and one.departure > start]
    return tuple(sorted(kept, key=lambda one: (one.arrival, one.departure)))


def landings(sessions: Sequence[Session], day: date, zone: str) -> tuple[date, ...]:
    """Days of the data that lie whole weeks from `day`, between first and last arrival."""
    local = [one.arrival.astimezone(ZoneInfo(zone)).date() for one in sessions]
    if not local:
        return ()
    first = min(local)
    behind = (day - first).days // 7
    candidate = day - timedelta(weeks=behind)
    found = []
    while candidate <= max(local):
        found.append(candidate)
        candidate += timedelta(weeks=1)
    return tuple(found)


def weeks_to(day: date, landing: date) -> int:
    """Weeks by which a session of `landing` is moved to fall on `day`."""
    return (day - landing).days // 7


def load_kw(stays: Iterable[Stay], rate_kw: float, start: datetime, end: datetime) -> float:
    """Mean consumption over a span of stays that all charge at full rate, positive."""
    return sum(_drawn_kwh(one, rate_kw, start, end) for one in stays) / _hours(start, end)


def less_kw(stays: Iterable[Stay], rate_kw: float, start: datetime, end: datetime) -> float:
    """Reduction that can be held all through `[start, end)` and leaves every car as full.

    Only cars that would charge from before the span to its end count: what would have
    stopped by itself is no reduction, and what begins later shows in no baseline of the
    time before.
    """
    reduction = 0.0
    for one in stays:
        spread = one.spread_kw(rate_kw)
        if one.plugged(start) and one.unmanaged_end(spread) >= end:
            left = one.energy_kwh - one.unmanaged_kwh(start, spread)
            later = rate_kw * _hours(end, one.departure)
            drawn = _drawn_kwh(one, spread, start, end)
            reduction += max(0.0, min(drawn, drawn - (left - later)))
    return reduction / _hours(start, end)


def more_kw(stays: Iterable[Stay], rate_kw: float, start: datetime, end: datetime) -> float:
    """Mean increase over `[start, end)` of cars that stay through it and want that energy."""
    increase = 0.0
    for one in stays:
        if one.plugged(start) and one.departure >= end:
            spread = one.spread_kw(rate_kw)
            left = one.energy_kwh - one.unmanaged_kwh(start, spread)
            most = min(left, rate_kw * _hours(start, end))
            increase += max(0.0, most - _drawn_kwh(one, spread, start, end))
    return increase / _hours(start, end)


def _drawn_kwh(one: Stay, rate_kw: float, start: datetime, end: datetime) -> float:
    return one.unmanaged_kwh(end, rate_kw) - one.unmanaged_kwh(start, rate_kw)


def _hours(start: datetime, end: datetime) -> float:
    return (end - start) / timedelta(hours=1)
