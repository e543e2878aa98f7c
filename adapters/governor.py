"""Limits of what is written to one device: range, steps, pace, wear. Pure: time is an argument.

Rate and wear hold back setpoints and renewals of a lease. What returns a device to its own
behaviour is counted and never held back.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from marketplace_core.dispatch.profile import DeviceProfile, LeaseRefresh

_ROUNDING_KW: Final = 1e-6
_HOUR_S: Final = 3600
_KEPT_HOURS: Final = 24
"""An hour's writes count until its last moment is 24 hours old: never too few, at most one
hour too long."""


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """A write that a limit holds back."""

    rule: str
    """Key of the profile."""
    reason: str
    retry_at: datetime | None = None
    """Wall time from which on it may be tried again; None = it never passes."""


class Shaped(msgspec.Struct, frozen=True, kw_only=True):
    """A power that the device can hold."""

    power_kw: float
    note: str = ""
    """What was changed, empty when nothing was."""


class Writes(msgspec.Struct, kw_only=True):
    """What a device was written lately: all that has to survive a restart."""

    last: datetime | None = None
    """Wall time of the newest setpoint or renewal."""
    hours: dict[int, int] = {}
    """Write requests by hour (Unix time / 3600)."""


class Governor:
    """Decides what may be written to one device; `charge` tells it what is."""

    def __init__(self, profile: DeviceProfile, writes: Writes | None = None) -> None:
        """`writes`: what another governor of this device had counted."""
        self.profile = profile
        self.writes = Writes() if writes is None else writes

    def shape(self, power_kw: float) -> Shaped | Denied:
        """The power in the device's steps: never beyond what is asked, never out of bounds."""
        profile = self.profile
        low, high = float(profile.min_kw), float(profile.max_kw)
        if not low - _ROUNDING_KW <= power_kw <= high + _ROUNDING_KW:
            reason = f"{power_kw:g} kW is outside {low:g} .. {high:g} kW"
            return Denied(rule="min_kw" if power_kw < low else "max_kw", reason=reason)
        if profile.step_kw <= 0:
            return Shaped(power_kw=power_kw)
        steps = math.floor(abs(power_kw) / profile.step_kw + _ROUNDING_KW)
        shaped = math.copysign(steps * profile.step_kw, power_kw) if steps else 0.0
        if not low - _ROUNDING_KW <= shaped <= high + _ROUNDING_KW:
            reason = (
                f"no step of {profile.step_kw:g} kW lies between {power_kw:g} kW and zero "
                f"within {low:g} .. {high:g} kW"
            )
            return Denied(rule="step_kw", reason=reason)
        if abs(shaped - power_kw) <= _ROUNDING_KW:
            return Shaped(power_kw=power_kw)
        note = f"{power_kw:g} kW became {shaped:g} kW: steps of {profile.step_kw:g} kW"
        return Shaped(power_kw=shaped, note=note)

    def check(self, at: datetime, requests: int) -> Denied | None:
        """Why a setpoint or renewal of so many write requests must wait, or None.

        `at` is wall time, aware UTC.
        """
        return self._pace(at) or self._wear(at, requests)

    def charge(self, at: datetime, requests: int, *, setpoint: bool) -> None:
        """Count write requests that are about to go out; `setpoint` is False for a release."""
        hour = _hour(at)
        counted = self._counted(at)
        self.writes.hours = {**counted, hour: counted.get(hour, 0) + requests}
        if setpoint:
            self.writes.last = at

    def used(self, at: datetime) -> int:
        """Write requests that count against the day's budget at `at`."""
        return sum(self._counted(at).values())

    def lease_s(self, lease_s: float, left_s: float) -> float:
        """Market seconds of lease to write; `left_s` is what is left of the setpoint."""
        if self.profile.refresh is LeaseRefresh.HALF_TIME:
            return lease_s
        longest = self.profile.longest_lease_s or math.inf
        return max(lease_s, min(left_s, longest))

    def renews(self, lease_s: float, left_s: float, standing_s: float) -> bool:
        """Whether a renewal has to write; `standing_s` is what the lease still has to run."""
        if self.profile.refresh is LeaseRefresh.HALF_TIME:
            return True
        return standing_s < min(lease_s, left_s)

    def _pace(self, at: datetime) -> Denied | None:
        every, last = self.profile.write_every_s, self.writes.last
        if every <= 0 or last is None or last > at:  # a clock that was set back holds nobody up
            return None
        free = last + timedelta(seconds=every)
        if at >= free:
            return None
        reason = f"setpoints are written every {every:g} s at most: again at {free.isoformat()}"
        return Denied(rule="write_every_s", reason=reason, retry_at=free)

    def _wear(self, at: datetime, requests: int) -> Denied | None:
        budget = self.profile.writes_per_day
        counted = self._counted(at)
        used = sum(counted.values())
        if budget <= 0 or used + requests <= budget:
            return None
        words = f"{used} of {budget} writes of 24 hours are used and this takes {requests}"
        for hour, count in sorted(counted.items()):
            used -= count
            if used + requests <= budget:
                free = _lapses(hour)
                reason = f"{words}: again at {free.isoformat()}"
                return Denied(rule="writes_per_day", reason=reason, retry_at=free)
        return Denied(rule="writes_per_day", reason=words)

    def _counted(self, at: datetime) -> dict[int, int]:
        """Without what is too old, and what a clock that ran ahead by more than a day left."""
        now = _hour(at)
        kept = range(now - _KEPT_HOURS, now + _KEPT_HOURS + 1)
        return {hour: count for hour, count in self.writes.hours.items() if hour in kept}


def _hour(at: datetime) -> int:
    return int(at.timestamp() // _HOUR_S)


def _lapses(hour: int) -> datetime:
    return datetime.fromtimestamp((hour + _KEPT_HOURS + 1) * _HOUR_S, UTC)
