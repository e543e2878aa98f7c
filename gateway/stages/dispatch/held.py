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

_RETRIED = (SetpointState.UNREACHABLE, SetpointState.UNCONFIRMED, SetpointState.ISSUED)


@dataclass(eq=False)
class Held:
    """One open setpoint. Deadlines of leases are monotonic wall seconds."""

    setpoint: Setpoint
    profile: DeviceProfile
    state: SetpointState
    since: datetime
    """Market time at which it was taken over."""
    work: object = None
    """What is being asked of the device for it now."""
    retry_at: float = 0.0
    """Monotonic: when to refresh its lease, or to try again."""
    lease_ends: float = 0.0
    """Monotonic: when the device falls back unless refreshed; 0 while not in force."""
    number: int = 0
    """Place in the order of taking over."""
    market_entry: datetime | None = None
    wall_entry: float | None = None
    """For which instants the agenda has it."""

    @property
    def busy(self) -> bool:
        """Whether something is being asked of the device for it now."""
        return self.work is not None

    @property
    def next_market(self) -> datetime:
        """Market time at which it has to be sent, or else ended."""
        if self.state is SetpointState.PLANNED:
            return min(self.send_at, self.setpoint.valid_until)
        return self.setpoint.valid_until

    @property
    def next_wall(self) -> float | None:
        """Monotonic time at which its lease is refreshed, or it is tried again; None = never."""
        wanted = self.state in _RETRIED or (self.state is SetpointState.APPLIED and self.refreshed)
        return self.retry_at if wanted and self.retry_at < math.inf else None

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

    def to_retry(self, monotonic: float) -> bool:
        """Whether it is time to find out where it stands."""
        return not self.busy and self.state in _RETRIED and self.retry_at <= monotonic

    def to_refresh(self, monotonic: float) -> bool:
        """Whether it is time to renew its lease."""
        if self.busy or self.state is not SetpointState.APPLIED:
            return False
        return self.refreshed and self.retry_at <= monotonic

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
