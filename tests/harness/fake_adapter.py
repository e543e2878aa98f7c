"""The DeviceAdapter port in memory: devices that do at once what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from adapters.base import refuse
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import (
    Applied,
    ReadBack,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unreachable,
)
from marketplace_core.errors import DeviceError
from marketplace_core.ports import Clock, ReadingSink
from marketplace_core.verification.reading import Reading


class FakeDevice:
    """What one device holds, and how often it was spoken to."""

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile
        self.reachable = True
        self.held: Setpoint | None = None
        self.commands = 0
        """Setpoints that reached it."""
        self.effects = 0
        """Setpoints that changed what it does."""
        self.newest: dict[str, int] = {}
        """Newest revision that it had of each order."""

    def obey(self, setpoint: Setpoint) -> str:
        """Take a setpoint, or give the reason why not."""
        self.commands += 1
        if setpoint.revision < self.newest.get(setpoint.order_id, 0):
            return "an older revision than it has had"
        self.newest[setpoint.order_id] = setpoint.revision
        self.effects += self.held is None or self.held.id != setpoint.id
        self.held = setpoint
        return ""


class FakeAdapter:
    """Implements the DeviceAdapter port without a wire."""

    protocol = "fake"

    def __init__(self, profiles: Iterable[DeviceProfile], clock: Clock) -> None:
        self.devices = {profile.device_id: FakeDevice(profile) for profile in profiles}
        self._clock = clock
        self._measured: asyncio.Queue[Reading] = asyncio.Queue()

    def profiles(self) -> Sequence[DeviceProfile]:
        """Every device."""
        return [device.profile for device in self.devices.values()]

    def connected(self, device_id: str) -> bool:
        """Whether the device is there."""
        device = self.devices.get(device_id)
        return device is not None and device.reachable

    def measure(self, reading: Reading) -> None:
        """A device measured something."""
        self._measured.put_nowait(reading)

    async def run(self, sink: ReadingSink, *, ready: Callable[[], None]) -> None:
        """Hand readings on until cancelled."""
        ready()
        while True:
            await sink.store([await self._measured.get()])

    async def issue(self, setpoints: Sequence[Setpoint]) -> AsyncIterator[list[SetpointOutcome]]:
        """One outcome per setpoint."""
        for setpoint in setpoints:
            yield [self._issued(setpoint)]

    async def release(self, device_id: str, *, order_id: str, revision: int) -> SetpointOutcome:
        """Let a device go, unless it holds a newer revision."""
        device, at = self.devices.get(device_id), self._clock.now()
        if device is None:
            reason = "no such device is bound here"
            return Refused(setpoint_id="", device_id=device_id, at=at, reason=reason)
        if not device.reachable:
            return Unreachable(setpoint_id="", device_id=device_id, at=at, reason="it is away")
        if device.newest.get(order_id, 0) > revision:
            reason = "a newer revision is in force"
            return Refused(setpoint_id="", device_id=device_id, at=at, reason=reason)
        if device.held is not None and device.held.order_id == order_id:
            device.held = None
        return Applied(setpoint_id="", device_id=device_id, at=at)

    async def read_back(self, device_id: str) -> ReadBack:
        """What the device holds; DeviceError when it cannot be asked."""
        device = self.devices.get(device_id)
        if device is None or not device.reachable:
            known = device is not None
            raise DeviceError("it cannot be asked", device_id=device_id, retryable=known)
        held = device.held
        return ReadBack(
            device_id=device_id, at=self._clock.now(), active=held is not None,
            setpoint_id=held and held.id, setpoint_kw=held and held.power_kw,
        )  # fmt: skip

    def _issued(self, setpoint: Setpoint) -> SetpointOutcome:
        device, at = self.devices.get(setpoint.device_id), self._clock.now()
        refused = refuse(setpoint, device.profile if device else None, at)
        if refused is not None or device is None:
            assert refused is not None
            return refused
        fields = {"setpoint_id": setpoint.id, "device_id": setpoint.device_id, "at": at}
        if not device.reachable:
            return Unreachable(**fields, reason="it is away")
        if reason := device.obey(setpoint):
            return Refused(**fields, reason=reason)
        return Applied(**fields, read_back_kw=setpoint.power_kw)
