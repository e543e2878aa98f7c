"""Setpoints that something is still to be done for, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from gateway.store.setpoints import SetpointState
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.ports import Clock

_TIMER_S: Final = 1.0
"""Wall seconds: timers in devices count whole ones."""
_REFRESHED = (
    LeaseKind.REVERT_TIMER, LeaseKind.TIME_TO_LIVE, LeaseKind.HEARTBEAT, LeaseKind.WATCHDOG,
)  # fmt: skip


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
        """Note that the device holds it for so many market seconds from now.

        Refreshed at half its time. A lease that lasts to the setpoint's end grows shorter with
        every refresh: it keeps the usual pace, and stops before the end, because what comes in
        after it would put the setpoint in force again.
        """
        wall = clock.wall_seconds(seconds)
        left = clock.wall_seconds((self.setpoint.valid_until - clock.now()).total_seconds())
        self.lease_ends = clock.monotonic() + wall
        pause = wall / 2
        if wall >= left - _TIMER_S:
            usual = clock.wall_seconds(self.setpoint.lease_s) / 2
            pause = usual if usual < left - _TIMER_S else math.inf
        self.retry_at = clock.monotonic() + pause
