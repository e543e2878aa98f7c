"""MQTT devices of a fleet without their connections: what each says, and when.

The firmware of one device is that of `firmware_sim.servers`: the same buffer of readings
and the same control of setpoints. Time is seconds since the start, given by `clock`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgpack
import numpy as np

from firmware_sim.fleet.core import STEP_S, Core
from firmware_sim.fleet.draws import uniform
from firmware_sim.fleet.population import Floats, Population
from firmware_sim.fleet.scenario import Reboot, ReconnectStorm, Scenario, seconds
from firmware_sim.fleet.timeline import Event
from firmware_sim.servers.mqtt_buffer import ReadingBuffer, Row
from firmware_sim.servers.mqtt_control import Control

KEPT: Final = 1_000
"""Readings that a device keeps until it is told that they are stored."""
RESEND_S: Final = 30.0
_REMEMBERED: Final = 8
"""Old messages of which a device that may replay keeps a copy."""
_WATTS: Final = 1000.0
_DROPS, _ANSWERS = 1, 2
"""Streams of draws."""


class Report(NamedTuple):
    """A device has something to say."""

    due: float
    """Seconds since the start."""
    device: int


class Loss(NamedTuple):
    """A device loses its connection without a goodbye."""

    device: int
    down_s: float
    """How long it stays away before it tries again."""


class MqttFleet:
    """Devices by number, from 0."""

    def __init__(
        self, population: Population, scenario: Scenario, *, seed: int, epoch_us: int,
        interval_s: float, boot: int = 1, kept: int = KEPT, resend_s: float = RESEND_S,
        clock: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        """`epoch_us`: Unix microseconds of the start; `interval_s`: between two readings.

        At most `kept` readings wait for their `stored`; after `resend_s` without one they go
        out again. Without a `clock` commands arrive at the end of the newest step.
        """
        count = len(population)
        self.core = Core(population, scenario, seed=seed)
        self.population = population
        self.dropped_messages = 0
        self._seed = seed
        self._epoch_us = epoch_us
        self._interval_s = max(STEP_S, interval_s)
        self._clock = clock or (lambda: self.core.at)
        self._kept = kept
        self._resend_s = resend_s
        self._boots = [boot] * count
        replays = any(each.kind == "replay" for each in scenario.timeline)
        self._remembered = _REMEMBERED if replays else 0
        self._buffers = [[ReadingBuffer(boot, kept, self._remembered)] for _ in range(count)]
        """Of each device one for each boot of which readings are kept; the newest last."""
        self._controls: dict[int, Control] = {}
        self._driven: set[int] = set()
        self._sequence = np.zeros(count, dtype=np.int64)
        self._next_due = np.ceil(population.phase * self._interval_s / STEP_S) * STEP_S
        self._next_due[self._next_due == 0] = self._interval_s
        self._since = np.zeros(count)
        self._energy_kws = np.zeros(count)
        self._dead_until = np.zeros(count)
        """While it boots a device measures nothing."""
        self._available = self.core.plant.available()
        self._quiet_since = np.full(count, np.nan)
        self._replayed_at = np.full(count, -np.inf)
        self._numbers: dict[tuple[int, int], int] = {}

    def step(self) -> tuple[list[Report], list[Loss]]:
        """Advance all devices; who reports within the next step, and who loses its link."""
        core = self.core
        for device in list(self._driven):
            self._obey(device)
        began = core.step()
        self._energy_kws += np.where(core.at > self._dead_until, core.mean_kw * STEP_S, 0.0)
        self._available = core.plant.available()
        due = np.flatnonzero(self._next_due <= core.at)
        spread = self.population.phase[due] * 997.0 % 1.0 * STEP_S
        for device in due.tolist():
            self._read(device)
        reports = [
            Report(core.at + offset, device)
            for offset, device in sorted(zip(spread.tolist(), due.tolist(), strict=True))
        ]
        losses = [loss for event in began for loss in self._losses(event)]
        return reports, losses

    def telemetry(self, device: int) -> list[tuple[float, bytes]]:
        """What goes out now: payloads, each with the seconds by which the way delays it."""
        now = self._clock()
        buffers = self._buffers[device]
        self._doubt(device, now)
        found = [payload for buffer in buffers for payload in buffer.messages()]
        old = self._old_message(device, now)
        if old is not None:
            found.append(old)
        late = float(self.core.effects.late_s[device])
        return [(late, payload) for payload in found if not self._lost(device, _DROPS)]

    def answer(self, device: int, command: Mapping[str, Any]) -> tuple[float, bytes] | None:
        """Obey a command; the acknowledgement with its delay, None when it is lost."""
        control = self._controls.get(device)
        if control is None:
            control = self._controls[device] = Control(
                self.population.ids[device], monotonic=self._clock,
                log=lambda _entry: None, accepts=lambda kw: self._refusal(device, kw),
            )  # fmt: skip
        reply = control.answer(dict(command), self._clock())
        self._driven.add(device)
        self._obey(device)
        if self._lost(device, _ANSWERS):
            return None
        return float(self.core.effects.late_s[device]), msgpack.packb(reply)

    def stored(self, device: int, confirmation: Mapping[str, int]) -> None:
        """Forget what is on the gateway's disk."""
        buffers = self._buffers[device]
        before = sum(map(len, buffers))
        for buffer in buffers:
            buffer.forget(confirmation)
        buffers[:-1] = [buffer for buffer in buffers[:-1] if len(buffer)]
        if sum(map(len, buffers)) < before:
            self._quiet_since[device] = np.nan

    def rewind(self, device: int) -> None:
        """The broker lost the session: whatever is kept goes out again."""
        for buffer in self._buffers[device]:
            buffer.rewind()

    def boot(self, device: int) -> int:
        """Number of the device's present boot."""
        return self._boots[device]

    def kept(self, device: int) -> int:
        """Readings that nobody has confirmed as stored."""
        return sum(map(len, self._buffers[device]))

    def commanded_kw(self, device: int) -> float | None:
        """What it is told to hold now."""
        control = self._controls.get(device)
        return None if control is None else control.commanded_kw()

    def reported(self) -> Floats:
        """Kilowatts that the devices say they do now."""
        return self.core.sample_kw

    def _obey(self, device: int) -> None:
        """Bring the column up to date: a lease may have run out, a start may have come."""
        control = self._controls[device]
        kw = control.commanded_kw()
        self.core.commanded_kw[device] = np.nan if kw is None else kw
        if kw is None and not control.waiting:
            self._driven.discard(device)

    def _refusal(self, device: int, kw: float) -> str:
        low, high = self.population.low_kw[device], self.population.high_kw[device]
        if low <= kw <= high:
            return ""
        return f"{kw:g} kW is outside of {low:g} to {high:g} kW"

    def _read(self, device: int) -> None:
        """Close the device's telemetry interval."""
        core, at = self.core, self.core.at
        span = at - self._since[device]
        capacity = self.population.capacity_kwh[device]
        skew_us = round(core.effects.skew_s[device] * 1e6)
        row: Row = [
            int(self._sequence[device]),
            self._epoch_us + round(self._since[device] * 1e6) + skew_us,
            float(span),
            round(float(self._energy_kws[device] / span) * _WATTS, 1),
            round(float(core.sample_kw[device]) * _WATTS, 1),
            round(float(core.plant.stored_kwh[device]) * _WATTS, 1) if capacity else None,
            bool(self._available[device]),
        ]
        self._buffers[device][-1].keep(row)
        self._sequence[device] += 1
        self._since[device] = at
        self._energy_kws[device] = 0.0
        self._next_due[device] += self._interval_s

    def _doubt(self, device: int, now: float) -> None:
        """Send what is kept again where nothing of it was confirmed for long."""
        buffers = self._buffers[device]
        if all(buffer.oldest_sent is None for buffer in buffers):
            self._quiet_since[device] = now
        elif not now - self._quiet_since[device] < self._resend_s:
            if not np.isnan(self._quiet_since[device]):
                self.rewind(device)
            self._quiet_since[device] = now

    def _old_message(self, device: int, now: float) -> bytes | None:
        every = self.core.effects.replay_s[device]
        if not every or now - self._replayed_at[device] < every:
            return None
        payload = self._buffers[device][-1].dropped_message()
        if payload is not None:
            self._replayed_at[device] = now
        return payload

    def _lost(self, device: int, kind: int) -> bool:
        share = float(self.core.effects.drops[device])
        if not share:
            return False
        number = self._numbers[kind, device] = self._numbers.get((kind, device), 0) + 1
        lost = uniform(self._seed, kind, device, number) < share
        self.dropped_messages += lost
        return lost

    def _losses(self, event: Event) -> list[Loss]:
        devices: list[int] = event.devices.tolist()
        match event.entry:
            case Reboot(down=down, forgets_readings=forgets):
                down_s = math.ceil(seconds(down) / STEP_S) * STEP_S
                for device in devices:
                    self._reboot(device, down_s, forgets=forgets)
                return [Loss(device, down_s) for device in devices]
            case ReconnectStorm():
                return [Loss(device, 0.0) for device in devices]
            case _:
                return []

    def _reboot(self, device: int, down_s: float, *, forgets: bool) -> None:
        """RAM is empty: no setpoint; sequence numbers begin anew under a new boot number."""
        self._controls.pop(device, None)
        self._driven.discard(device)
        self.core.commanded_kw[device] = np.nan
        self._boots[device] += 1
        kept = [] if forgets else [each for each in self._buffers[device] if len(each)]
        for buffer in kept:
            buffer.rewind()
        fresh = ReadingBuffer(self._boots[device], self._kept, self._remembered)
        self._buffers[device] = [*kept, fresh]
        self._sequence[device] = 0
        self._energy_kws[device] = 0.0
        self._dead_until[device] = self._since[device] = self.core.at + down_s
        self._next_due[device] = self.core.at + down_s + self._interval_s
