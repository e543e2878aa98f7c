"""One car at a charging station: how its charge grows when nobody interferes.

A station that spreads charging aims to finish well before the driver comes back, so it
charges at one constant rate: what the car wants over nine tenths of the announced stay.
A car park without such stations charges every car at full rate from its arrival. Either way
an undisturbed car takes a constant rate until it has the energy that the real session
delivered, or leaves: the history needs no stepping.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from firmware_sim.dataset import Session

STATION_KW = 6.6
"""A 208 V, 32 A station, the ordinary kind at the place the sessions come from."""
SLOWEST_KW = 1.4
"""The least that a car accepts (6 A at 208 V, rounded up)."""
SPREAD_SHARE = 0.9
"""Part of the announced stay over which a station spreads the energy."""


class Stay(msgspec.Struct, frozen=True):
    """A session placed on the simulated calendar."""

    arrival: datetime
    departure: datetime
    energy_kwh: float
    """What the car takes when nobody hinders it."""
    requested_kwh: float
    estimated: datetime | None = None
    """When the driver said that the car would leave."""

    def present_s(self, start: datetime, end: datetime) -> float:
        """Seconds of `[start, end)` in which the car is plugged in."""
        span = min(end, self.departure) - max(start, self.arrival)
        return max(0.0, span.total_seconds())

    def plugged(self, at: datetime) -> bool:
        """Whether the car is there at an instant."""
        return self.arrival <= at < self.departure

    @property
    def finish_by(self) -> datetime:
        """When the station aims to be done; never after the driver really comes back."""
        announced = self.estimated if self.estimated is not None else self.departure
        if announced <= self.arrival:
            announced = self.departure
        return self.arrival + SPREAD_SHARE * (min(announced, self.departure) - self.arrival)

    def spread_kw(self, rate_kw: float) -> float:
        """Rate at which an undisturbed station of `rate_kw` spreads this car's energy."""
        hours = (self.finish_by - self.arrival) / timedelta(hours=1)
        return min(rate_kw, max(SLOWEST_KW, self.energy_kwh / hours))

    def unmanaged_kwh(self, at: datetime, rate_kw: float) -> float:
        """Energy charged by an instant at a constant rate that nobody changes."""
        if at <= self.arrival:
            return 0.0
        return min(self.energy_kwh, rate_kw * self.present_s(self.arrival, at) / 3600.0)

    def unmanaged_end(self, rate_kw: float) -> datetime:
        """When a car at a constant rate stops charging."""
        full = self.arrival + timedelta(hours=self.energy_kwh / rate_kw)
        return min(full, self.departure)


def stay(session: Session, weeks: int, zone: str) -> Stay:
    """A session moved by whole weeks of local civil time (negative = earlier)."""
    announced = session.estimated
    return Stay(
        move_weeks(session.arrival, weeks, zone),
        move_weeks(session.departure, weeks, zone),
        session.energy_kwh,
        session.requested_kwh,
        None if announced is None else move_weeks(announced, weeks, zone),
    )


def move_weeks(at: datetime, weeks: int, zone: str) -> datetime:
    """The same weekday and local time, whole weeks away, in UTC."""
    local = at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) + timedelta(weeks=weeks)
    return local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
