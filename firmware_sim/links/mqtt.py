"""Chargers that connect to a broker, and come back when it goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from firmware_sim.links.base import Addresses, Moments, Readings, noted
from firmware_sim.records import Recorder
from firmware_sim.scenario import Charger
from firmware_sim.servers.mqtt import MqttDevice
from firmware_sim.servers.mqtt_buffer import MALFORMED, row_of
from firmware_sim.world import Fault
from marketplace_core.ports import TimeMap
from marketplace_core.verification.flags import FlagKind

_RESEND_S: Final = 300.0
"""Market seconds without a confirmation after which a charger sends again what it keeps."""
_LEAST_RESEND_S: Final = 1.5
"""The same on the wall: the gateway needs some time to commit."""


class MqttLink:
    """The chargers of a scenario, each with a connection of its own."""

    def __init__(
        self,
        chargers: Sequence[Charger],
        faults: Sequence[Fault] = (),
        *,
        broker: tuple[str, int],
        time_map: TimeMap,
        record: Recorder,
    ) -> None:
        """The boot counter is the wall's second: it grows with every start."""
        self._broker = broker
        self._map = time_map
        boot = int(time.time())
        resend_s = max(_RESEND_S / time_map.speed, _LEAST_RESEND_S)
        self._devices = {
            one.id: MqttDevice(
                one.id, one.seller, boot=boot, log=noted(record), resend_s=resend_s
            )
            for one in chargers
        }  # fmt: skip
        self._troubles = [
            _Trouble(fault, self._devices[fault.device])
            for fault in faults
            if fault.device in self._devices
        ]

    def disturb(self, at: datetime) -> None:
        """Lose and find links, send what cannot be read and what is long gone."""
        for trouble in self._troubles:
            trouble.advance(at)

    def commands(self) -> Mapping[str, float | None]:
        """What each charger is told."""
        return {name: device.commanded_kw() for name, device in self._devices.items()}

    def show(self, moments: Moments) -> None:
        """Chargers speak once a minute only."""

    def report(self, readings: Readings) -> None:
        """Queue a minute's reading in every charger, in wall time and watts."""
        for name, device in self._devices.items():
            device.report(row_of(readings[name], self._map))

    def addresses(self) -> Addresses:
        """None: chargers are clients of the broker."""
        return {}

    async def run(self, started: Callable[[], None]) -> None:
        """Hold every charger's link to the broker."""
        host, port = self._broker
        started()
        async with asyncio.TaskGroup() as tasks:
            for device in self._devices.values():
                tasks.create_task(device.run(host, port))


class _Trouble:
    """One fault of one charger as time goes by."""

    def __init__(self, fault: Fault, device: MqttDevice) -> None:
        self._fault = fault
        self._device = device
        self._lost = False
        self._done = 0

    def advance(self, at: datetime) -> None:
        if self._fault.kind is FlagKind.OFFLINE:
            self._switch(lost=self._fault.active(at))
            return
        moments = self._fault.moments
        while self._done < len(moments) and moments[self._done] <= at and self._send():
            self._done += 1

    def _switch(self, *, lost: bool) -> None:
        if lost != self._lost:
            self._lost = lost
            if lost:
                self._device.lose_link()
            else:
                self._device.go_online()

    def _send(self) -> bool:
        if self._fault.kind is FlagKind.REPLAYS:
            return self._device.replay_dropped()
        self._device.inject("telemetry", MALFORMED[self._done % len(MALFORMED)])
        return True
