"""Binds the plant's devices to the servers that speak for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from firmware_sim.plant import Moment
from firmware_sim.records import Recorder
from firmware_sim.scenario import Charger
from firmware_sim.servers.mqtt import MqttDevice
from marketplace_core.ports import TimeMap
from marketplace_core.verification.reading import Reading

Moments = Mapping[str, Moment]
Readings = Mapping[str, Reading]
_MICROSECOND = timedelta(microseconds=1)


class Link(Protocol):
    """The servers of one protocol."""

    def commands(self) -> Mapping[str, float | None]:
        """Power that each of its devices is told to hold now; None = its fallback."""

    def show(self, moments: Moments) -> None:
        """Take over what the devices did in a step."""

    def report(self, readings: Readings) -> None:
        """Send the readings of a full minute."""

    def addresses(self) -> Mapping[str, Mapping[str, Any]]:
        """Where each device can be reached, where it listens itself."""

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until cancelled; call `started` once every device listens."""


class MqttLink:
    """Chargers that connect to a broker, and come back when it goes away."""

    def __init__(
        self,
        chargers: Sequence[Charger],
        *,
        broker: tuple[str, int],
        time_map: TimeMap,
        record: Recorder,
    ) -> None:
        """The boot counter is the wall's second: it grows with every start."""
        self._broker = broker
        self._map = time_map
        boot = int(time.time())
        self._devices = {
            one.id: MqttDevice(one.id, one.seller, boot=boot, log=_noted(record))
            for one in chargers
        }

    def commands(self) -> Mapping[str, float | None]:
        """What each charger is limited to."""
        return {name: device.commanded_kw() for name, device in self._devices.items()}

    def show(self, moments: Moments) -> None:
        """Chargers speak once a minute only."""

    def report(self, readings: Readings) -> None:
        """Queue a minute's reading in every charger, in wall time and watts."""
        for name, device in self._devices.items():
            device.report(self._row(readings[name]))

    def addresses(self) -> Mapping[str, Mapping[str, Any]]:
        """None: chargers are clients of the broker."""
        return {}

    async def run(self, started: Callable[[], None]) -> None:
        """Hold every charger's link to the broker."""
        host, port = self._broker
        started()
        async with asyncio.TaskGroup() as tasks:
            for device in self._devices.values():
                tasks.create_task(device.run(host, port))

    def _row(self, reading: Reading) -> list[Any]:
        start = self._map.to_wall(reading.start)
        sample = None if reading.sample_kw is None else reading.sample_kw * 1000.0
        return [
            reading.sequence,
            round(start.timestamp() * 1e6),
            reading.seconds / self._map.speed,
            reading.power_kw * 1000.0,
            sample,
            None,
            reading.available,
        ]


def _noted(record: Recorder) -> Callable[[Mapping[str, Any]], None]:
    """A device's own log entry, as a line of the wire record."""

    def note(entry: Mapping[str, Any]) -> None:
        detail = {key: value for key, value in entry.items() if key != "device"}
        action = "command" if "received" in entry else "device"
        record(entry["device"], action, **detail)

    return note
