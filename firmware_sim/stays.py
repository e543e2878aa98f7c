"""Places real charging sessions on the simulated calendar, by whole weeks only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from firmware_sim.dataset import Session
from firmware_sim.devices.car import Stay, move_weeks, stay

_MARGIN = timedelta(days=7)


def moved(
    sessions: Iterable[Session], weeks: int, zone: str, start: datetime, end: datetime
) -> tuple[Stay, ...]:
    """Sessions moved by whole weeks that meet `[start, end)` afterwards, by arrival."""
    first = move_weeks(start, -weeks, zone) - _MARGIN
    last = move_weeks(end, -weeks, zone) + _MARGIN
    stays = (stay(one, weeks, zone) for one in sessions if first <= one.arrival < last)
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
    """Mean unmanaged consumption of stays over a span, positive."""
    hours = (end - start).total_seconds() / 3600.0
    return (
        sum(one.unmanaged_kwh(end, rate_kw) - one.unmanaged_kwh(start, rate_kw) for one in stays)
        / hours
    )


def flexible_kw(one: Stay, rate_kw: float, start: datetime, end: datetime) -> float:
    """Mean reduction over `[start, end)` after which the car can still be full at departure."""
    if one.departure <= end or one.arrival >= end:
        return 0.0
    hours = (end - start).total_seconds() / 3600.0
    left = one.energy_kwh - one.unmanaged_kwh(start, rate_kw)
    drawn = one.unmanaged_kwh(end, rate_kw) - one.unmanaged_kwh(start, rate_kw)
    later = rate_kw * (one.departure - end).total_seconds() / 3600.0
    return max(0.0, min(drawn, drawn - (left - later))) / hours
