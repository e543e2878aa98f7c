"""What stands between the pipe and the plant: firmware, buses and backends, without sockets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from adapters.mqtt.wire import Kind, topic
from firmware_sim.servers.mqtt_buffer import MALFORMED, ReadingBuffer, row_of, status
from firmware_sim.servers.mqtt_control import Control
from firmware_sim.world import Fault
from marketplace_core.simtime import identity
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading

_RESEND: Final = timedelta(minutes=5)
"""A device sends again what nobody confirmed for so long."""
_NEVER: Final = float("inf")
Frame = dict[str, Any]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A setpoint for one device."""

    device: str
    id: str
    order_id: str
    revision: int
    power_kw: float
    valid_from: datetime
    valid_until: datetime
    lease_s: float


class Agent(Protocol):
    """One device as the gateway meets it."""

    def commanded_kw(self, at: datetime) -> float | None:
        """What it is told to hold at an instant; None = its own behaviour."""

    def frames(self, reading: Reading) -> list[Frame]:
        """What of a minute reaches the gateway."""

    def set(self, asked: Asked, now: datetime) -> Frame:
        """Hand it a setpoint."""

    def release(self, order_id: str, revision: int, now: datetime) -> Frame:
        """Return it to its own behaviour."""

    def query(self, now: datetime) -> Frame:
        """What it says is in force."""


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


class _Held:
    """The setpoint of a device on the market's clock; the clock is moved, it does not run."""

    def __init__(self, device: str) -> None:
        self._s = 0.0
        self.control = Control(
            device, monotonic=lambda: self._s, log=lambda _entry: None, accepts=lambda _kw: ""
        )

    def at(self, now: datetime) -> Control:
        """The control at an instant."""
        self._s = now.timestamp()
        return self.control

    def set(self, asked: Asked, now: datetime, *, lease_s: float) -> Frame:
        lasts = (asked.valid_until - now).total_seconds()
        if lasts <= 0:
            return _outcome("refused", "its time is over")
        command = {
            "kind": "set", "id": asked.id, "order_id": asked.order_id,
            "revision": asked.revision, "power_w": asked.power_kw * 1000.0, "lease_s": lease_s,
            "ttl_s": _NEVER, "valid_for_s": lasts,
            "starts_in_s": max(0.0, (asked.valid_from - now).total_seconds()),
        }  # fmt: skip
        return self._answer(command, now)

    def release(self, order_id: str, revision: int, now: datetime) -> Frame:
        command = {"kind": "release", "id": "", "order_id": order_id, "revision": revision}
        return self._answer(command, now)

    def query(self, now: datetime) -> Frame:
        held = self.at(now).state()
        power_w = held["power_w"]
        return {
            "active": held["setpoint_id"] is not None,
            "setpoint_id": held["setpoint_id"],
            "setpoint_kw": None if power_w is None else power_w / 1000.0,
            "lease_s": held["lease_s"],
        }

    def _answer(self, command: dict[str, Any], now: datetime) -> Frame:
        answer = self.at(now).answer(command, now.timestamp())
        if answer["status"] != "applied":
            return _outcome("refused", answer["reason"])
        power_w = answer["power_w"]
        read_back = None if power_w is None else power_w / 1000.0
        return _outcome("applied", "", read_back, answer["lease_s"])


class BusAgent:
    """A SunSpec unit on a home's bus, polled once a minute."""

    def __init__(self, device: str, faults: Sequence[Fault], *, driven: bool) -> None:
        self._device = device
        self._faults = faults
        self._driven = driven
        self._held = _Held(device)

    def commanded_kw(self, at: datetime) -> float | None:
        """What its control registers say."""
        return self._held.at(at).commanded_kw()

    def frames(self, reading: Reading) -> list[Frame]:
        """The poll of a minute: its mean power, or silence."""
        if self._silent(reading.start):
            return [{"kind": "silent", "protocol": "modbus", "device": self._device}]
        return [_sample("modbus", reading)]

    def set(self, asked: Asked, now: datetime) -> Frame:
        """Write its control registers."""
        if self._silent(now):
            return _outcome("unreachable", "the unit does not answer")
        if not self._driven:
            return _outcome("refused", "the unit has no control model")
        return self._held.set(asked, now, lease_s=asked.lease_s)

    def release(self, order_id: str, revision: int, now: datetime) -> Frame:
        """Disable its control."""
        if self._silent(now):
            return _outcome("unreachable", "the unit does not answer")
        return self._held.release(order_id, revision, now)

    def query(self, now: datetime) -> Frame:
        """Read its control registers, which carry no id."""
        if self._silent(now):
            return _outcome("unreachable", "the unit does not answer")
        return {**self._held.query(now), "setpoint_id": None}

    def _silent(self, at: datetime) -> bool:
        return _suffers(self._faults, FlagKind.TIMES_OUT, at)


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
        self._held = _Held(device)
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
            return _outcome("unreachable", reason)
        return self._held.set(asked, now, lease_s=asked.lease_s)

    def release(self, order_id: str, revision: int, now: datetime) -> Frame:
        """Send it a release through the broker."""
        if reason := self._away(now):
            return _outcome("unreachable", reason)
        return self._held.release(order_id, revision, now)

    def query(self, now: datetime) -> Frame:
        """Ask it through the broker."""
        if reason := self._away(now):
            return _outcome("unreachable", reason)
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
        if _suffers(self._faults, FlagKind.OFFLINE, now):
            return "the charger is offline"
        return ""

    def _presence(self, at: datetime) -> list[Frame]:
        online = not _suffers(self._faults, FlagKind.OFFLINE, at)
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


class EventAgent:
    """An owner who is told of events: a site's VEN, or an aggregator's backend."""

    def __init__(self, device: str, faults: Sequence[Fault], *, protocol: str) -> None:
        self._device = device
        self._faults = faults
        self._protocol = protocol
        self._held = _Held(device)

    def commanded_kw(self, at: datetime) -> float | None:
        """What it agreed to for an instant."""
        return self._held.at(at).commanded_kw()

    def frames(self, reading: Reading) -> list[Frame]:
        """Its report of a minute."""
        return [_sample(self._protocol, reading)]

    def set(self, asked: Asked, now: datetime) -> Frame:
        """Tell it of an event, which it accepts or opts out of; the event ends by itself."""
        if opts_out(self._faults, asked.valid_from, asked.valid_until):
            return _outcome("refused", "optOut: the owner does not take part in this event")
        answer = self._held.set(asked, now, lease_s=_NEVER)
        return {**answer, "read_back_kw": None, "lease_s": None}

    def release(self, order_id: str, revision: int, now: datetime) -> Frame:
        """Cancel the event."""
        answer = self._held.release(order_id, revision, now)
        return {**answer, "read_back_kw": None, "lease_s": None}

    def query(self, now: datetime) -> Frame:
        """What it agreed to and follows now."""
        return {**self._held.query(now), "lease_s": None}


def opts_out(faults: Sequence[Fault], start: datetime, end: datetime) -> bool:
    """Whether an owner declines an event over a span."""
    return any(
        one.kind is FlagKind.OPTS_OUT and start < one.until and one.at < end for one in faults
    )


def _suffers(faults: Sequence[Fault], kind: FlagKind, at: datetime) -> bool:
    return any(one.kind is kind and one.active(at) for one in faults)


def _outcome(
    status_: str, reason: str, read_back_kw: float | None = None, lease_s: float | None = None
) -> Frame:
    return {"status": status_, "reason": reason, "read_back_kw": read_back_kw, "lease_s": lease_s}


def _sample(protocol: str, reading: Reading) -> Frame:
    frame: Frame = {
        "kind": "sample", "protocol": protocol, "device": reading.series,
        "start_us": round(reading.start.timestamp() * 1e6), "seconds": reading.seconds,
        "power_kw": reading.power_kw,
    }  # fmt: skip
    if reading.soc_kwh is not None:
        frame["soc_kwh"] = reading.soc_kwh
    if reading.register_kwh is not None:
        frame["register_kwh"] = reading.register_kwh
    if protocol == "webhook":
        frame["available"] = reading.available
    return frame
