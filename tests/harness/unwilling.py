"""Batteries whose link lets the gateway down once, each behind a port of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence

from adapters.modbus.sunspec import HEADER
from adapters.modbus.wire import load_model
from firmware_sim.servers.modbus import BatteryUnit, Log

SHY_S = 1.0
"""Wall seconds for which the controls of a battery cannot be reached."""
LATE_S = 5.0
"""Longer than anybody waits for an answer."""
SHY, MUTE = "bat-2", "bat-3"


class ShyBattery(BatteryUnit):
    """Once somebody asks for its controls they are out of reach for a while: nothing is written."""

    _until = 0.0

    def read(self, address: int, count: int) -> list[int] | None:
        """Registers; the server keeps an answer back for `late_s`."""
        asked = address in self.controls() and count > HEADER
        if asked and not self._until:
            self._until = time.monotonic() + SHY_S
        self.faults.late_s = LATE_S if asked and time.monotonic() < self._until else 0.0
        return super().read(address, count)


class MuteBattery(BatteryUnit):
    """The first setpoint comes into force and the answer to it is lost."""

    _spoke = False

    def written(self, address: int) -> None:
        """Act on registers; the server drops the answer where `drop_writes` is set."""
        super().written(address)
        enables = address - self.controls().start == load_model(704).points["WSetEna"].offset
        self.faults.drop_writes = enables and not self._spoke
        self._spoke = self._spoke or enables


def batteries(log: Log) -> Sequence[BatteryUnit]:
    """One of each."""
    return [
        ShyBattery(SHY, serial="SN2", capacity_kwh=6.4, log=log),
        MuteBattery(MUTE, serial="SN3", capacity_kwh=6.4, log=log),
    ]
