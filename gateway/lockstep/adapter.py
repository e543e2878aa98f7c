"""DeviceAdapters of a virtual day: every protocol's devices behind one pipe.

What a protocol means to the market is kept: silence of a bus, a refusal by an owner, a
device that is offline, buffered and malformed telemetry (through the real codec).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any

from adapters.base import refuse
from adapters.modbus.silence import Silence
from gateway.lockstep.clock import LockstepClock
from gateway.lockstep.field import Field, Frame, Taker
from gateway.store.engine import from_us, to_us
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import (
    Applied,
    ReadBack,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.errors import DeviceError
from marketplace_core.ports import ReadingSink
from marketplace_core.units import Kw
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading


class LockstepAdapter:
    """Implements the DeviceAdapter port for one protocol."""

    def __init__(
        self, protocol: str, profiles: Sequence[DeviceProfile], field: Field, clock: LockstepClock
    ) -> None:
        self._protocol = protocol
        self._profiles = {profile.device_id: profile for profile in profiles}
        self._field = field
        self._clock = clock
        self._heard: dict[str, datetime] = {}

    @property
    def protocol(self) -> str:
        """Name of the protocol it stands for."""
        return self._protocol

    def profiles(self) -> Sequence[DeviceProfile]:
        """Every device of this adapter."""
        return list(self._profiles.values())

    def connected(self, device_id: str) -> bool:
        """Whether the device was heard of within three telemetry intervals."""
        heard, profile = self._heard.get(device_id), self._profiles.get(device_id)
        if heard is None or profile is None:
            return False
        return (self._clock.now() - heard).total_seconds() <= 3 * profile.telemetry_s

    async def run(self, sink: ReadingSink, *, ready: Callable[[], None]) -> None:
        """Take what devices send until cancelled."""
        taker = self.taker(sink)
        self._field.attach(self._protocol, taker)
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            self._field.detach(self._protocol, taker)

    def taker(self, sink: ReadingSink) -> Taker:
        """What takes this protocol's frames."""
        return Samples(sink, self._clock, self._noted)

    async def issue(self, setpoints: Sequence[Setpoint]) -> AsyncIterator[list[SetpointOutcome]]:
        """Tell devices, one after the other; yield all outcomes at once."""
        yield [self._set(setpoint) for setpoint in setpoints]

    async def release(self, device_id: str, *, order_id: str, revision: int) -> SetpointOutcome:
        """Return a device to its fallback."""
        answer = self._field.pipe.ask(
            "release", device=device_id, order_id=order_id, revision=revision
        )
        return self._outcome("", device_id, answer)

    async def read_back(self, device_id: str) -> ReadBack:
        """What a device says that it holds; DeviceError when it cannot be asked."""
        answer = self._field.pipe.ask("query", device=device_id)
        if answer.get("status") == "unreachable":
            raise DeviceError(answer["reason"], device_id=device_id, retryable=True)
        power = answer["setpoint_kw"]
        return ReadBack(
            device_id=device_id, at=self._clock.now(), active=answer["active"],
            setpoint_id=answer["setpoint_id"], setpoint_kw=None if power is None else Kw(power),
            lease_remaining_s=answer["lease_s"],
        )  # fmt: skip

    def _noted(self, device_id: str) -> None:
        self._heard[device_id] = self._clock.now()

    def _set(self, setpoint: Setpoint) -> SetpointOutcome:
        profile = self._profiles.get(setpoint.device_id)
        refused = refuse(setpoint, profile, self._clock.now())
        if refused is not None:
            return refused
        answer = self._field.pipe.ask(
            "set", device=setpoint.device_id, id=setpoint.id, order_id=setpoint.order_id,
            revision=setpoint.revision, power_kw=setpoint.power_kw,
            valid_from_us=to_us(setpoint.valid_from), valid_until_us=to_us(setpoint.valid_until),
            lease_s=setpoint.lease_s,
        )  # fmt: skip
        return self._outcome(setpoint.id, setpoint.device_id, answer)

    def _outcome(self, setpoint_id: str, device_id: str, answer: dict[str, Any]) -> SetpointOutcome:
        at, reason = self._clock.now(), answer.get("reason", "")
        status, power = answer["status"], answer.get("read_back_kw")
        if status == "applied":
            return Applied(
                setpoint_id=setpoint_id, device_id=device_id, at=at,
                read_back_kw=None if power is None else Kw(power),
                lease_remaining_s=answer.get("lease_s"),
            )  # fmt: skip
        if status == "refused":
            return Refused(
                setpoint_id=setpoint_id, device_id=device_id, at=at, reason=reason,
                declined=reason.startswith("optOut"),
            )  # fmt: skip
        kind = Unreachable if status == "unreachable" else Unconfirmed
        return kind(setpoint_id=setpoint_id, device_id=device_id, at=at, reason=reason)


class Samples:
    """Takes samples and silences of units, reports of VENs, readings of aggregates."""

    def __init__(
        self, sink: ReadingSink, clock: LockstepClock, noted: Callable[[str], None]
    ) -> None:
        """`noted` hears of every device that spoke."""
        self._sink = sink
        self._clock = clock
        self._noted = noted
        self._silent: dict[str, Silence] = {}

    async def arrived(self, frames: Sequence[Frame]) -> None:
        """Store a minute's readings in one commit."""
        readings: list[Reading] = []
        for frame in frames:
            if frame["kind"] == "silent":
                self._silence(frame["device"])
                continue
            self._silent.pop(frame["device"], None)
            self._noted(frame["device"])
            readings.append(_reading(frame))
        if readings:
            await self._sink.store(readings)

    def _silence(self, device_id: str) -> None:
        at = self._clock.now()
        silent = self._silent.setdefault(device_id, Silence())
        if silent.failed(at):
            self._sink.noticed(
                device_id=device_id, kind=FlagKind.TIMES_OUT, since=silent.since or at,
                evidence="the unit did not answer its poll",
            )  # fmt: skip


def _reading(frame: Frame) -> Reading:
    return Reading(
        series=frame["device"], start=from_us(frame["start_us"]), seconds=frame["seconds"],
        power_kw=Kw(frame["power_kw"]), soc_kwh=frame.get("soc_kwh"),
        available=frame.get("available", True), register_kwh=frame.get("register_kwh"),
    )  # fmt: skip
