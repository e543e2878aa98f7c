"""Setpoints that something is still to be done for, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.store.setpoints import SetpointState
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.ports import Clock

_REFRESHED = (LeaseKind.REVERT_TIMER, LeaseKind.TIME_TO_LIVE, LeaseKind.WATCHDOG)


@dataclass
class Held:
    """One open setpoint. Deadlines of leases are monotonic wall seconds."""

    setpoint: Setpoint
    profile: DeviceProfile
    state: SetpointState
    since: datetime
    """Market time at which it was taken over."""
    busy: bool = False
    """Something is being asked of the device for it now."""
    retry_at: float = 0.0
    """Monotonic: when to refresh its lease, or to try again."""
    lease_ends: float = 0.0
    """Monotonic: when the device falls back unless refreshed; 0 while not in force."""

    @property
    def send_at(self) -> datetime:
        """Market time at which it goes on the wire."""
        return self.setpoint.valid_from - timedelta(seconds=self.profile.notice_s)

    @property
    def refreshed(self) -> bool:
        """Whether somebody has to refresh its lease: an OpenADR event ends by itself."""
        return self.profile.lease in _REFRESHED

    def due(self, now: datetime) -> bool:
        """Whether it is to be sent for the first time."""
        return self.state is SetpointState.PLANNED and not self.busy and self.send_at <= now

    def over(self, now: datetime) -> bool:
        """Whether its time has passed."""
        return not self.busy and self.setpoint.valid_until <= now

    def renew(self, clock: Clock, seconds: float) -> None:
        """Note that the device holds it for so many market seconds from now."""
        wall = clock.wall_seconds(seconds)
        self.lease_ends = clock.monotonic() + wall
        self.retry_at = clock.monotonic() + wall / 2
