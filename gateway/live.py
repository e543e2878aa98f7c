"""What is known of each device now: its newest reading and when it was heard of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from marketplace_core.dispatch.planner import DeviceState
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.ports import Clock
from marketplace_core.verification.reading import Reading

_SETTLE_S = 1.0
"""Wall seconds for connections to come up in, whatever the telemetry interval."""
_log = structlog.get_logger(__name__)
_AHEAD = timedelta(minutes=15)
"""How far a device's clock may be ahead before what it says is no state: a reading of next year
would hide every true one until then."""
_STALE_AFTER = 5.0
"""A device counts as disconnected after this many missed telemetry intervals."""


class Live(Protocol):
    """The newest of every device, for whoever has to know it without waiting."""

    async def load(self) -> None:
        """Take over what is known already; before anything is asked."""

    async def run(self) -> None:
        """Keep in step with other processes, until cancelled."""

    async def close(self) -> None:
        """Give up what `load` and `run` opened; after both."""

    async def warmed(self) -> None:
        """Wait until every device was heard since the start, but not for the silent ones."""

    def update(self, readings: Iterable[Reading]) -> None:
        """Take over readings; an older one never replaces a newer one."""

    def newest(self, series: str) -> Reading | None:
        """The newest reading of a series."""

    def stale(self) -> list[str]:
        """Devices whose newest reading is older than five telemetry intervals."""

    def device(self, device_id: str) -> DeviceState | None:
        """What the planner sees of a device; None when no such device is bound here."""

    def devices(self, device_ids: Iterable[str]) -> list[DeviceState]:
        """The same of many at one instant; those that are not bound here are left out."""


class LiveState:
    """Live device state in the memory of this process."""

    def __init__(self, profiles: Mapping[str, DeviceProfile], clock: Clock) -> None:
        self._profiles = profiles
        self._clock = clock
        self._newest: dict[str, Reading] = {}
        self._began = clock.now()
        self._silent = set(profiles)
        self._all_heard = asyncio.Event()
        if not self._silent:
            self._all_heard.set()

    async def load(self) -> None:
        """Nothing to load: the readings store fills it."""

    async def run(self) -> None:
        """Nothing to do: no other process shares it."""

    async def close(self) -> None:
        """Nothing to close."""

    async def warmed(self) -> None:
        """Wait until every device was heard since the start, but not for the silent ones.

        Right after a start all that is known may be old. A device that is alive speaks within
        one telemetry interval; after two of the slowest nobody is waited for any more.
        """
        slowest = max((p.telemetry_s for p in self._profiles.values()), default=0.0)
        try:
            async with asyncio.timeout(self._clock.wall_seconds(2.0 * slowest) + _SETTLE_S):
                await self._all_heard.wait()
        except TimeoutError:
            _log.warning("devices_silent", devices=sorted(self._silent))

    def update(self, readings: Iterable[Reading]) -> None:
        """Take over readings; an older one never replaces a newer one."""
        latest = self._latest()
        for reading in readings:
            self._take_over(reading, latest)
        if not self._silent:
            self._all_heard.set()

    def _latest(self) -> datetime:
        """When what a device says of now may end at the latest."""
        return self._clock.now() + _AHEAD

    def _take_over(self, reading: Reading, latest: datetime) -> bool:
        known = self._newest.get(reading.series)
        if known is not None and reading.start < known.start:
            return False
        if reading.end > latest:
            return False  # stored, and no word on what the device does now
        self._newest[reading.series] = reading
        if reading.end > self._began:
            self._silent.discard(reading.series)
        return True

    def newest(self, series: str) -> Reading | None:
        """The newest reading of a series."""
        return self._newest.get(series)

    def stale(self) -> list[str]:
        """Devices whose newest reading is older than five telemetry intervals."""
        now = self._clock.now()
        return [device for device in self._profiles if not self._fresh(device, now)]

    def device(self, device_id: str) -> DeviceState | None:
        """What the planner sees of a device; None when no such device is bound here."""
        found = self.devices([device_id])
        return found[0] if found else None

    def devices(self, device_ids: Iterable[str]) -> list[DeviceState]:
        """The same of many at one instant; those that are not bound here are left out."""
        now, profiles, newest = self._clock.now(), self._profiles, self._newest
        return [
            _state(profiles[each], newest.get(each), now) for each in device_ids if each in profiles
        ]

    def _fresh(self, device_id: str, now: datetime) -> bool:
        return _is_fresh(self._profiles[device_id], self._newest.get(device_id), now)


def _is_fresh(profile: DeviceProfile, reading: Reading | None, now: datetime) -> bool:
    if reading is None:
        return False
    return (now - reading.end).total_seconds() <= _STALE_AFTER * profile.telemetry_s


def _state(profile: DeviceProfile, reading: Reading | None, now: datetime) -> DeviceState:
    if reading is None:
        return DeviceState(profile=profile, reference_kw=None, connected=False)
    sample = reading.power_kw if reading.sample_kw is None else reading.sample_kw
    return DeviceState(
        profile=profile,
        reference_kw=sample,
        soc_kwh=reading.soc_kwh,
        available=reading.available,
        connected=_is_fresh(profile, reading, now),
        wanted_kwh=reading.wanted_kwh,
        leaves_at=reading.leaves_at,
    )
