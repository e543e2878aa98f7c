"""A fleet of MQTT devices in virtual time, without sockets: the same seed, the same bytes.

The gateway in it stores at once what it gets. A connection that is lost comes back after its
jitter at the first try.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from firmware_sim.fleet.draws import full_jitter
from firmware_sim.fleet.mqtt_fleet import MqttFleet
from firmware_sim.servers.mqtt_buffer import status


class Said(NamedTuple):
    """What reached the broker."""

    at: float
    """Seconds since the start."""
    device: str
    kind: str
    payload: bytes


class Told(NamedTuple):
    """A command for a device."""

    at: float
    device: str
    command: Mapping[str, Any]


class Playback:
    """Plays a fleet step by step."""

    def __init__(
        self, fleet: MqttFleet, *, seed: int, commands: Sequence[Told] = (), base_s: float = 2.0,
        cap_s: float = 30.0, stores: bool = True,
    ) -> None:  # fmt: skip
        """`stores`: the gateway confirms telemetry; else devices keep everything."""
        self._fleet = fleet
        self._seed = seed
        self._numbers = {name: n for n, name in enumerate(fleet.population.ids)}
        self._commands = sorted(commands, key=lambda one: one.at)
        self._jitter = (base_s, cap_s)
        self._stores = stores
        self._tries = [0] * len(fleet.population)
        self._back: list[tuple[float, int]] = []
        self._away: set[int] = set()
        self._queue: list[tuple[float, int, int, str, bytes]] = []
        self._order = 0
        self._stored: dict[tuple[int, int], set[int]] = {}
        """Of each device and boot the readings behind a gap."""
        self._through: dict[tuple[int, int], int] = {}

    def run(self, until: float) -> Iterator[Said]:
        """Everything that is said from now until a time, in order."""
        while self._fleet.core.at < until:
            reports, losses = self._fleet.step()
            at = self._fleet.core.at
            for loss in losses:
                self._lose(loss.device, at, loss.down_s)
            while self._back and self._back[0][0] <= at:
                self._return(heapq.heappop(self._back)[1], at)
            while self._commands and self._commands[0].at <= at:
                self._tell(self._commands.pop(0), at)
            for report in reports:
                if report.device not in self._away:
                    self._report(report.device, report.due)
            yield from self._said(at)

    def _said(self, at: float) -> Iterator[Said]:
        """What has arrived by now; telemetry is confirmed as it arrives."""
        while self._queue and self._queue[0][0] <= at:
            due, _, device, kind, payload = heapq.heappop(self._queue)
            if kind == "telemetry" and self._stores:
                self._fleet.stored(device, self._store(device, msgpack.unpackb(payload)))
            yield Said(due, self._fleet.population.ids[device], kind, payload)

    def _store(self, device: int, told: Mapping[str, Any]) -> dict[str, int]:
        """Confirm up to the first reading that is missing, as the profile asks."""
        known = self._stored.setdefault((device, told["boot"]), set())
        known.update(row[0] for row in told["readings"])
        through = self._through.get((device, told["boot"]), told["oldest"] - 1)
        while through + 1 in known:
            through += 1
            known.discard(through)
        self._through[device, told["boot"]] = through
        return {"boot": told["boot"], "through": through}

    def _lose(self, device: int, at: float, down_s: float) -> None:
        self._away.add(device)
        self._put(at, device, "status", status(self._fleet.boot(device), online=False))
        self._tries[device] += 1
        wait = full_jitter(0, *self._jitter, self._seed, device, self._tries[device])
        heapq.heappush(self._back, (at + down_s + wait, device))

    def _return(self, device: int, at: float) -> None:
        self._away.discard(device)
        self._put(at, device, "status", status(self._fleet.boot(device), online=True))
        self._report(device, at)

    def _tell(self, told: Told, at: float) -> None:
        device = self._numbers[told.device]
        if device in self._away:
            return
        answer = self._fleet.answer(device, told.command)
        if answer is not None:
            self._put(at + answer[0], device, "ack", answer[1])

    def _report(self, device: int, due: float) -> None:
        for late, payload in self._fleet.telemetry(device):
            self._put(due + late, device, "telemetry", payload)

    def _put(self, due: float, device: int, kind: str, payload: bytes) -> None:
        self._order += 1
        heapq.heappush(self._queue, (due, self._order, device, kind, payload))
