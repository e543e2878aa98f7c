"""Runs the MQTT devices of a fleet against a real broker: one process, one connection each."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import ssl
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgpack
import numpy as np

from adapters.mqtt.wire import topic
from firmware_sim.fleet import packets
from firmware_sim.fleet.core import STEP_S
from firmware_sim.fleet.draws import full_jitter, uniform
from firmware_sim.fleet.mqtt_fleet import Loss, MqttFleet, Report
from firmware_sim.fleet.mqtt_session import MOST_IN_FLIGHT, Session
from firmware_sim.fleet.stats import Stats
from firmware_sim.servers.mqtt_buffer import status

_TICK_S: Final = 0.02
_SWEEP_S: Final = 1.0
_STEPS: Final = 5
"""Steps taken in one go when behind; connections get their turn in between."""
_AT_ONCE: Final = 500
"""Connections that are being made at a time: what one machine's kernel takes without loss."""
_CONNECT_S: Final = 20.0
_SILENCE: Final = 1.5
"""Keep-alive intervals without a word from the broker after which it is gone."""
_START, _AGAIN = 11, 12
"""Streams of draws."""
_NOT_AUTHORISED: Final = frozenset({4, 5, 134, 135})


@dataclass(frozen=True, kw_only=True)
class MqttOptions:
    """Where the broker is and how devices come back to it."""

    host: str = "127.0.0.1"
    port: int = 1883
    organisation: str = "org_seller"
    keepalive_s: int = 60
    session_s: int = 3_600
    """How long the broker keeps the session of a device that is away."""
    spread_s: float = 10.0
    """Devices switch on within so many seconds."""
    base_s: float = 2.0
    cap_s: float = 30.0
    """Of the full jitter: the first wait is up to `base_s`, then up to twice that ..."""
    tls: ssl.SSLContext | None = None
    handout: Path | None = None
    """Folder with `DEVICE.password`, as `flexway broker acl` makes it."""


class MqttHost:
    """Sessions of all devices, their timers and their figures."""

    def __init__(
        self, fleet: MqttFleet, options: MqttOptions, *, seed: int, stats: Stats,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        """`clock`: seconds since the start, the same as the fleet's."""
        self._clock = clock
        self._fleet = fleet
        self._options = options
        self._seed = seed
        self._stats = stats
        count = len(fleet.population)
        self._prefixes = [self._prefix(device) for device in fleet.population.ids]
        self._sessions = [
            Session(device, self, five=not fleet.population.old[device]) for device in range(count)
        ]
        self._sent_at, self._heard_at = np.zeros(count), np.zeros(count)
        self._up = np.zeros(count, dtype=bool)
        self._reports: deque[Report] = deque()
        self._late: list[tuple[float, int, bytes, bytes]] = []
        self._tries: list[tuple[float, int]] = []
        self._connecting = 0
        self._refusals: Counter[int] = Counter()
        self._stopping = False
        self._now = 0.0
        self._left = 0
        """Connections that still have to end, once it stops."""
        self._all_gone = asyncio.Event()
        self.all_up = asyncio.Event()
        """Every device has been connected at the same time."""

    async def run(self, stop: asyncio.Event) -> None:
        """Step and hold the sessions until `stop`; then everybody says goodbye."""
        spread = self._options.spread_s
        self._tries = [
            (spread * uniform(self._seed, _START, device), device)
            for device in range(len(self._sessions))
        ]
        heapq.heapify(self._tries)
        for session in self._sessions:
            session.trying = True
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._tick(stop, tasks)
                self._stopping = True
            await self._goodbye()
        finally:
            self._stopping = True
            for session in self._sessions:
                session.abort()

    async def _tick(self, stop: asyncio.Event, tasks: asyncio.TaskGroup) -> None:
        swept = 0.0
        while not stop.is_set():
            self._now = self._clock()
            self._advance()
            self._send()
            self._connect_due(tasks)
            if self._now - swept >= _SWEEP_S:
                swept = self._now
                self._sweep()
            await asyncio.sleep(_TICK_S)

    # What a session tells its device.

    def opened(self, session: Session) -> bytes:
        """Introduce the device, with its Will."""
        device, options = session.device, self._options
        self._heard_at[device] = self._sent_at[device] = self._now
        boot = self._fleet.boot(device)
        will = packets.Will(self._prefixes[device] + b"status", status(boot, online=False))
        name = self._fleet.population.ids[device]
        return packets.connect(
            name, five=session.five, keepalive_s=options.keepalive_s, session_s=options.session_s,
            in_flight=MOST_IN_FLIGHT, will=will, username=name if options.handout else "",
            password=self._password(name),
        )  # fmt: skip

    def welcomed(self, session: Session, *, known: bool) -> None:
        """Subscribe where that is news, say that it is there, send what is kept."""
        device = session.device
        self._up[device] = True
        self._stats.connects += 1
        prefix = self._prefixes[device]
        if not known:
            session.subscribe((prefix + b"command", prefix + b"stored"))
            self._fleet.rewind(device)
        online = status(self._fleet.boot(device), online=True)
        session.publish(prefix + b"status", online, retain=True)
        self._telemetry(device)
        if not self.all_up.is_set() and self._up.all():
            self.all_up.set()

    def refused(self, session: Session, code: int) -> None:
        """Say once for each code what the broker said."""
        if not self._refusals[code]:
            hint = "; --handout names the folder with passwords" if code in _NOT_AUTHORISED else ""
            version = "5" if session.five else "3.1.1"
            name = self._fleet.population.ids[session.device]
            sys.stderr.write(f"the broker refuses {name} (MQTT {version}, code {code}){hint}\n")
        self._refusals[code] += 1
        self._stats.refused += 1

    def heard(self, session: Session) -> None:
        """It is there."""
        self._heard_at[session.device] = self._now

    def received(self, session: Session, message: packets.Message) -> None:
        """Obey a command, or forget what is stored."""
        device = session.device
        if message.topic.endswith(b"/stored"):
            self._stats.stored += 1
            self._fleet.stored(device, msgpack.unpackb(message.payload))
        elif message.topic.endswith(b"/command"):
            self._stats.commands += 1
            answer = self._fleet.answer(device, msgpack.unpackb(message.payload))
            if answer is not None:
                self._publish(session, answer[0], b"ack", answer[1])

    def lost(self, session: Session) -> None:
        """Come back with full jitter."""
        self._up[session.device] = False
        self._left -= 1
        if self._stopping and self._left <= 0:
            self._all_gone.set()
        if not session.trying:
            self._try_later(session)

    # Timers.

    def _advance(self) -> None:
        for _ in range(_STEPS):
            if self._fleet.core.at + STEP_S > self._now:
                return
            reports, losses = self._fleet.step()
            self._reports.extend(reports)
            for loss in losses:
                self._lose(loss)

    def _lose(self, loss: Loss) -> None:
        session = self._sessions[loss.device]
        if loss.down_s:
            session.forget()
        if session.connected:
            self._stats.losses += 1
            session.hold_s = loss.down_s
            session.abort()

    def _send(self) -> None:
        while self._reports and self._reports[0].due <= self._now:
            device = self._reports.popleft().device
            if self._up[device]:
                self._telemetry(device)
                self._sessions[device].flush()
        while self._late and self._late[0][0] <= self._now:
            _, device, where, payload = heapq.heappop(self._late)
            if self._up[device]:
                self._sessions[device].publish(where, payload)
                self._sessions[device].flush()

    def _telemetry(self, device: int) -> None:
        session = self._sessions[device]
        for late_s, payload in self._fleet.telemetry(device):
            self._stats.published += 1
            self._publish(session, late_s, b"telemetry", payload)

    def _publish(self, session: Session, late_s: float, kind: bytes, payload: bytes) -> None:
        device = session.device
        where = self._prefixes[device] + kind
        self._sent_at[device] = self._now
        if late_s:
            heapq.heappush(self._late, (self._now + late_s, device, where, payload))
        else:
            session.publish(where, payload)

    def _connect_due(self, tasks: asyncio.TaskGroup) -> None:
        while self._tries and self._tries[0][0] <= self._now and self._connecting < _AT_ONCE:
            _, device = heapq.heappop(self._tries)
            self._connecting += 1
            tasks.create_task(self._connect(self._sessions[device]))

    async def _connect(self, session: Session) -> None:
        options = self._options
        session.tries += 1
        session.failures += 1
        try:
            async with asyncio.timeout(_CONNECT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: session, options.host, options.port, ssl=options.tls
                )
        except (OSError, TimeoutError):
            self._stats.failed += 1
        finally:
            self._connecting -= 1
            session.trying = False
        if not session.connected:
            self._try_later(session)

    def _try_later(self, session: Session) -> None:
        if self._stopping:
            return
        options, session.trying = self._options, True
        wait = session.hold_s + full_jitter(
            session.failures, options.base_s, options.cap_s,
            self._seed, _AGAIN, session.device, session.tries,
        )  # fmt: skip
        session.hold_s = 0.0
        heapq.heappush(self._tries, (self._now + wait, session.device))

    def _sweep(self) -> None:
        """Keep connections alive, give up those that are dead, write the figures."""
        limit = self._options.keepalive_s
        for device in np.flatnonzero(self._up & (self._now - self._sent_at > limit / 2)):
            self._sent_at[device] = self._now
            self._sessions[device].ping()
        for device in np.flatnonzero(self._now - self._heard_at > _SILENCE * limit):
            self._sessions[device].abort()
        self._stats.write(self._now, up=int(self._up.sum()))

    async def _goodbye(self) -> None:
        """Everybody says that it goes; the Will stays unsaid."""
        self._left = sum(session.connected for session in self._sessions)
        if not self._left:
            self._all_gone.set()
        for session in self._sessions:
            offline = status(self._fleet.boot(session.device), online=False)
            session.goodbye(self._prefixes[session.device] + b"status", offline)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_S):
                await self._all_gone.wait()

    def _prefix(self, device: str) -> bytes:
        name = topic(self._options.organisation, device, "status")
        return name.removesuffix("status").encode()

    def _password(self, device: str) -> str:
        if self._options.handout is None:
            return ""
        return (self._options.handout / f"{device}.password").read_text().strip()
