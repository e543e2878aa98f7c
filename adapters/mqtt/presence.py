"""Who is there: status, Will, and when a device was last heard of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adapters.mqtt.exchange import MqttDevice
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.ports import Clock

_MISSED: Final = 3
"""Telemetry intervals after which a silent device is no longer believed present."""
_LEAST_PATIENCE_S: Final = 30.0
"""Wall seconds; below it the keep-alive and the Will are quicker."""


class Presence:
    """Which devices are there: their status, their Will, and when they were last heard of."""

    def __init__(self, clock: Clock, devices: Iterable[MqttDevice]) -> None:
        self._clock = clock
        self._patience = {
            device.device_id: max(
                _LEAST_PATIENCE_S, _MISSED * clock.wall_seconds(device.profile.telemetry_s)
            )
            for device in devices
        }
        self._online: dict[str, bool] = {}
        self._heard: dict[str, float] = {}

    def heard(self, device_id: str, *, online: bool = True) -> None:
        """A device, or its Will, spoke."""
        self._online[device_id] = online
        self._heard[device_id] = self._clock.monotonic()

    def reported(self, device_id: str) -> None:
        """Telemetry came; it may have waited at the broker, so it overrules no goodbye."""
        self._online.setdefault(device_id, True)
        self._heard[device_id] = self._clock.monotonic()

    def reachable(self, device_id: str) -> bool | None:
        """True and False as last heard; None for a device never heard of."""
        return self._online.get(device_id)

    def split(self, setpoints: Iterable[Setpoint]) -> tuple[list[Setpoint], list[Setpoint]]:
        """Setpoints whose device was ever heard of, and the others."""
        heard: list[Setpoint] = []
        unheard: list[Setpoint] = []
        for each in setpoints:
            (heard if each.device_id in self._online else unheard).append(each)
        return heard, unheard

    def recent(self, device_id: str) -> bool:
        """Whether it is there and was heard of within three telemetry intervals."""
        if not self._online.get(device_id, False):
            return False
        silent = self._clock.monotonic() - self._heard[device_id]
        return silent <= self._patience[device_id]
