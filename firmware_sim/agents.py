"""What stands between the pipe and the plant: firmware, buses and backends, without sockets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec

from firmware_sim.servers.mqtt_control import Control
from firmware_sim.world import Fault
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading

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


class Held:
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
        """Hold a setpoint from when it is valid, for as long as the lease and its time allow."""
        lasts = (asked.valid_until - now).total_seconds()
        if lasts <= 0:
            return outcome("refused", "its time is over")
        command = {
            "kind": "set", "id": asked.id, "order_id": asked.order_id,
            "revision": asked.revision, "power_w": asked.power_kw * 1000.0, "lease_s": lease_s,
            "ttl_s": _NEVER, "valid_for_s": lasts,
            "starts_in_s": max(0.0, (asked.valid_from - now).total_seconds()),
        }  # fmt: skip
        return self._answer(command, now)

    def release(self, order_id: str, revision: int, now: datetime) -> Frame:
        """Let go of what an order wanted."""
        command = {"kind": "release", "id": "", "order_id": order_id, "revision": revision}
        return self._answer(command, now)

    def query(self, now: datetime) -> Frame:
        """What is in force."""
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
            return outcome("refused", answer["reason"])
        power_w = answer["power_w"]
        read_back = None if power_w is None else power_w / 1000.0
        return outcome("applied", "", read_back, answer["lease_s"])


class BusAgent:
    """A SunSpec unit on a home's bus, polled once a minute."""

    def __init__(self, device: str, faults: Sequence[Fault], *, driven: bool) -> None:
        self._device = device
        self._faults = faults
        self._driven = driven
        self._held = Held(device)

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
            return outcome("unreachable", "the unit does not answer")
        if not self._driven:
            return outcome("refused", "the unit has no control model")
        return self._held.set(asked, now, lease_s=asked.lease_s)

    def release(self, order_id: str, revision: int, now: datetime) -> Frame:
        """Disable its control."""
        if self._silent(now):
            return outcome("unreachable", "the unit does not answer")
        return self._held.release(order_id, revision, now)

    def query(self, now: datetime) -> Frame:
        """Read its control registers, which carry no id."""
        if self._silent(now):
            return outcome("unreachable", "the unit does not answer")
        return {**self._held.query(now), "setpoint_id": None}

    def _silent(self, at: datetime) -> bool:
        return suffers(self._faults, FlagKind.TIMES_OUT, at)


class EventAgent:
    """An owner who is told of events: a site's VEN, or an aggregator's backend."""

    def __init__(self, device: str, faults: Sequence[Fault], *, protocol: str) -> None:
        self._device = device
        self._faults = faults
        self._protocol = protocol
        self._held = Held(device)

    def commanded_kw(self, at: datetime) -> float | None:
        """What it agreed to for an instant."""
        return self._held.at(at).commanded_kw()

    def frames(self, reading: Reading) -> list[Frame]:
        """Its report of a minute."""
        return [_sample(self._protocol, reading)]

    def set(self, asked: Asked, now: datetime) -> Frame:
        """Tell it of an event, which it accepts or opts out of; the event ends by itself."""
        if opts_out(self._faults, asked.valid_from, asked.valid_until):
            return outcome("refused", "optOut: the owner does not take part in this event")
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


def suffers(faults: Sequence[Fault], kind: FlagKind, at: datetime) -> bool:
    """Whether one of a device's faults is of a kind and goes on at an instant."""
    return any(one.kind is kind and one.active(at) for one in faults)


def outcome(
    status: str, reason: str, read_back_kw: float | None = None, lease_s: float | None = None
) -> Frame:
    """The answer to a setpoint or a release."""
    return {"status": status, "reason": reason, "read_back_kw": read_back_kw, "lease_s": lease_s}


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
