"""What is known of each device now: its newest reading and when it was heard of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from marketplace_core.dispatch.planner import DeviceState

from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.ports import Clock
from marketplace_core.verification.reading import Reading

_STALE_AFTER = 5.0
"""A device counts as disconnected after this many missed telemetry intervals."""


class LiveState:
    """Live device state in memory; refilled from the readings store at start."""

    def __init__(self, profiles: Mapping[str, DeviceProfile], clock: Clock) -> None:
        self._profiles = profiles
        self._clock = clock
        self._newest: dict[str, Reading] = {}

    def update(self, readings: Iterable[Reading]) -> None:
        """Take over readings; an older one never replaces a newer one."""
        for reading in readings:
            known = self._newest.get(reading.series)
            if known is None or reading.start >= known.start:
                self._newest[reading.series] = reading

    def newest(self, series: str) -> Reading | None:
        """The newest reading of a series."""
        return self._newest.get(series)

    def stale(self) -> list[str]:
        """Devices whose newest reading is older than five telemetry intervals."""
        now = self._clock.now()
        return [device for device in self._profiles if not self._fresh(device, now)]

    def device(self, device_id: str) -> DeviceState | None:
        """What the planner sees of a device; None when no such device is bound here."""
        profile = self._profiles.get(device_id)
        if profile is None:
            return None
        reading = self._newest.get(device_id)
        if reading is None:
            return DeviceState(profile=profile, reference_kw=None, connected=False)
        sample = reading.power_kw if reading.sample_kw is None else reading.sample_kw
        return DeviceState(
            profile=profile,
            reference_kw=sample,
            soc_kwh=reading.soc_kwh,
            available=reading.available,
            connected=self._fresh(device_id, self._clock.now()),
        )

    def _fresh(self, device_id: str, now: datetime) -> bool:
        reading = self._newest.get(device_id)
        interval = timedelta(seconds=self._profiles[device_id].telemetry_s)
        return reading is not None and now - reading.end <= _STALE_AFTER * interval
