"""One car at a charging station: how its charge grows, alone or under a limit.

Unmanaged, a car charges at full rate from arrival until it has the energy that the real
session delivered, or leaves.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from firmware_sim.dataset import Session

STATION_KW = 6.6
"""A 208 V, 32 A station, the ordinary kind at the place the sessions come from."""
_DONE_KWH = 1e-9


class Stay(msgspec.Struct, frozen=True):
    """A session placed on the simulated calendar."""

    arrival: datetime
    departure: datetime
    energy_kwh: float
    """What the car takes when nobody hinders it."""
    requested_kwh: float

    def present_s(self, start: datetime, end: datetime) -> float:
        """Seconds of `[start, end)` in which the car is plugged in."""
        span = min(end, self.departure) - max(start, self.arrival)
        return max(0.0, span.total_seconds())

    def plugged(self, at: datetime) -> bool:
        """Whether the car is there at an instant."""
        return self.arrival <= at < self.departure

    def hungry(self, charged_kwh: float) -> bool:
        """Whether the car wants more than it has."""
        return self.energy_kwh - charged_kwh > _DONE_KWH

    def charge(
        self, charged_kwh: float, start: datetime, end: datetime, rate_kw: float
    ) -> tuple[float, float]:
        """Energy charged by `end`, and the energy of this step, at `rate_kw` while present."""
        possible = rate_kw * self.present_s(start, end) / 3600.0
        taken = max(0.0, min(possible, self.energy_kwh - charged_kwh))
        return charged_kwh + taken, taken

    def unmanaged_kwh(self, at: datetime, rate_kw: float) -> float:
        """Energy charged by an instant when nobody ever limits the car."""
        if at <= self.arrival:
            return 0.0
        return min(self.energy_kwh, rate_kw * self.present_s(self.arrival, at) / 3600.0)

    def unmanaged_end(self, rate_kw: float) -> datetime:
        """When an unlimited car stops charging."""
        full = self.arrival + timedelta(hours=self.energy_kwh / rate_kw)
        return min(full, self.departure)


def stay(session: Session, weeks: int, zone: str) -> Stay:
    """A session moved by whole weeks of local civil time (negative = earlier)."""
    return Stay(
        move_weeks(session.arrival, weeks, zone),
        move_weeks(session.departure, weeks, zone),
        session.energy_kwh,
        session.requested_kwh,
    )


def move_weeks(at: datetime, weeks: int, zone: str) -> datetime:
    """The same weekday and local time, whole weeks away, in UTC."""
    local = at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) + timedelta(weeks=weeks)
    return local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
