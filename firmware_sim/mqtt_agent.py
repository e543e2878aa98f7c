"""A charger behind a broker without sockets: what it publishes, what reaches it, what waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from adapters.mqtt.wire import Kind, topic
from firmware_sim.agents import Asked, Frame, Held, outcome, suffers
from firmware_sim.servers.mqtt_buffer import MALFORMED, ReadingBuffer, row_of, status
from firmware_sim.world import Fault
from marketplace_core.simtime import identity
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading

_RESEND: Final = timedelta(minutes=5)
"""A device sends again what nobody confirmed for so long."""


class Broker:
    """The gateway's link to the broker, and what waits at the broker while it is down."""

    def __init__(self) -> None:
        self.up = True
        self._waiting: list[Frame] = []
        self._retained: dict[str, Frame] = {}

    def publish(self, frame: Frame, *, retained: bool = False) -> list[Frame]:
        """What the gateway gets of a message now: the message, or nothing while it waits."""
        if self.up:
            return [frame]
        if retained:
            self._retained[frame["topic"]] = frame
        else:
            self._waiting.append(frame)
        return []

    def released(self) -> list[Frame]:
        """Once the link is up again: what has waited, in order, then the newest presence."""
        if not self.up:
            return []
        frames = [*self._waiting, *self._retained.values()]
        self._waiting, self._retained = [], {}
        return frames


class MqttAgent:
    """A charger behind the broker: its buffer, its presence and its setpoint."""

    def __init__(
        self,
        device: str,
        faults: Sequence[Fault],
        *,
        organisation: str,
        boot: int,
        broker: Broker,
    ) -> None:
        self._device = device
        self._faults = faults
        self._organisation = organisation
        self._broker = broker
        self._held = Held(device)
        self._buffer = ReadingBuffer(boot)
        self._told_online: bool | None = None
        self._quiet_since: datetime | None = None
        self._owed = 0
        self._sent_malformed = 0

    def commanded_kw(self, at: datetime) -> float | None:
        """What its firmware obeys; a lost link changes nothing until the lease is over."""
        return self._held.at(at).commanded_kw()

    def frames(self, reading: Reading) -> list[Frame]:
        """What it publishes in a minute, in the order in which it does."""
        self._buffer.keep(row_of(reading, identity()))
        frames = self._presence(reading.start)
        if not self._told_online:
            return frames
        frames += self._nonsense(reading.start)
        self._rewind_when_quiet(reading.end)
        for payload in self._buffer.messages():
            frames += self._publish("telemetry", payload)
        return frames

    def set(self, asked: Asked, now: datetime) -> Frame:
        """Send it a setpoint through the broker."""
        if reason := self._away(now):
            return outcome("unreachable", reason)
        return self._held.set(asked, now, lease_s=asked.lease_s)

    def release(self, order_id: str, revision: int, now: datetime) -> Frame:
        """Send it a release through the broker."""
        if reason := self._away(now):
            return outcome("unreachable", reason)
        return self._held.release(order_id, revision, now)

    def query(self, now: datetime) -> Frame:
        """Ask it through the broker."""
        if reason := self._away(now):
            return outcome("unreachable", reason)
        return self._held.query(now)

    def stored(self, boot: int, through: int, now: datetime) -> None:
        """Let it forget what is stored, if it hears of it."""
        if not self._away(now):
            kept = len(self._buffer)
            self._buffer.forget({"boot": boot, "through": through})
            if len(self._buffer) < kept:
                self._quiet_since = None

    def _away(self, now: datetime) -> str:
        if not self._broker.up:
            return "the link to the broker is down"
        if suffers(self._faults, FlagKind.OFFLINE, now):
            return "the charger is offline"
        return ""

    def _presence(self, at: datetime) -> list[Frame]:
        online = not suffers(self._faults, FlagKind.OFFLINE, at)
        if online == self._told_online:
            return []
        self._told_online = online
        if online:
            self._buffer.rewind()
            self._quiet_since = None
        return self._publish("status", status(self._buffer.boot, online=online), retained=True)

    def _nonsense(self, at: datetime) -> list[Frame]:
        """Malformed messages of this minute, and old ones as soon as there is one to repeat."""
        frames: list[Frame] = []
        for fault in self._faults:
            due = fault.moments.count(at)
            if fault.kind is FlagKind.MALFORMED and due:
                payload = MALFORMED[self._sent_malformed % len(MALFORMED)]
                self._sent_malformed += 1
                frames += self._publish("telemetry", payload)
            if fault.kind is FlagKind.REPLAYS:
                self._owed += due
                old = self._buffer.dropped_message() if self._owed else None
                if old is not None:
                    self._owed -= 1
                    frames += self._publish("telemetry", old)
        return frames

    def _rewind_when_quiet(self, now: datetime) -> None:
        if self._buffer.oldest_sent is None:
            return
        if self._quiet_since is None:
            self._quiet_since = now
        if now - self._quiet_since >= _RESEND:
            self._buffer.rewind()
            self._quiet_since = now

    def _publish(self, kind: Kind, payload: bytes, *, retained: bool = False) -> list[Frame]:
        where = topic(self._organisation, self._device, kind)
        frame = {"kind": "mqtt", "topic": where, "payload": payload}
        return self._broker.publish(frame, retained=retained)
