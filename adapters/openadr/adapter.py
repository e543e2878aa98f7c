"""Implements the DeviceAdapter port: a 2.0b VTN whose VENs are devices.

An issued setpoint is an event that the VEN holds until its end, also when the gateway is
gone; `optIn` is the acknowledgement, and 2.0b has no read-back of the value. What was
never handed to a VEN is withdrawn when it is reported Unreachable, so that it cannot
arrive later behind the gateway's back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from adapters.openadr.config import OpenAdrVen, OpenAdrVtn, check_vens
from adapters.openadr.link import VtnLink
from adapters.openadr.outcome import inadmissible, refused, released, settled, unreachable
from adapters.openadr.service import SiteService
from adapters.openadr.state import EventRecord
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
from marketplace_core.ports import Clock, ReadingSink, TimeMap


@dataclass(frozen=True)
class _Pending:
    setpoint: Setpoint
    deadline: float
    """Monotonic wall seconds."""


class OpenAdrAdapter:
    """All VENs of one VTN. Call `restore` once before `run` answers VENs."""

    protocol = "openadr"

    def __init__(
        self, config: OpenAdrVtn, vens: Sequence[OpenAdrVen], *, clock: Clock, time_map: TimeMap
    ) -> None:
        """Raises ConfigError when VENs cannot be told apart."""
        check_vens(config, tuple(vens))
        self._config = config
        self._vens = {ven.device_id: ven for ven in vens}
        self._clock = clock
        self._wakes: set[asyncio.Event] = set()
        self._restored = asyncio.Event()
        self._service = SiteService(
            config, vens, clock=clock, time_map=time_map, changed=self._wake
        )
        self._link = VtnLink(config, vens, self._service)

    def profiles(self) -> Sequence[DeviceProfile]:
        """The device of every configured VEN."""
        return [ven.profile for ven in self._vens.values()]

    @property
    def link_up(self) -> bool:
        """Whether VENs can reach the VTN."""
        return self.port != 0

    @property
    def port(self) -> int:
        """Port that the VTN listens on; 0 until it does."""
        return self._link.port

    @property
    def counters(self) -> Mapping[str, int]:
        """What was refused or could not be used, since the start."""
        refused = {f"refused_{reason}": count for reason, count in self._link.gate.refused.items()}
        return {**refused, **self._service.counts, "strangers": self._link.strangers}

    def restore(self, setpoints: Sequence[Setpoint]) -> None:
        """Reload the events of setpoints that may have reached their VEN; [] on a first start.

        VENs are held off (503) until this was called: in 2.0b an event that is missing from
        a distribute message is cancelled.
        """
        self._service.restore([s for s in setpoints if s.device_id in self._vens])
        self._restored.set()

    async def run(self, sink: ReadingSink, *, ready: Callable[[], None]) -> None:
        """Serve VENs until cancelled. Raises ConfigError when it cannot listen."""
        self._service.attach(sink)
        listening = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._link.run(listening=listening.set))
            await listening.wait()
            await self._restored.wait()
            await self._service.save()
            self._link.gate.held = False
            ready()

    async def issue(
        self, setpoints: Sequence[Setpoint]
    ) -> AsyncIterator[Sequence[SetpointOutcome]]:
        """Publish events and yield outcomes as VENs opt in or out. Raises StoreError."""
        with self._waking() as wake:
            tried = [await self._publish(setpoint) for setpoint in setpoints]
            pending = [item for item in tried if isinstance(item, _Pending)]
            early = [item for item in tried if not isinstance(item, _Pending)]
            if early:
                yield early
            while pending:
                wake.clear()
                outcomes = [(item, self._settled(item)) for item in pending]
                pending = [item for item, outcome in outcomes if outcome is None]
                batch = [outcome for _, outcome in outcomes if outcome is not None]
                if batch:
                    yield batch
                elif pending:
                    await self._until(wake, min(item.deadline for item in pending))

    async def release(self, device_id: str, *, order_id: str, revision: int) -> SetpointOutcome:
        """Cancel the event that carries an order to a device, and wait for the VEN to say so."""
        if device_id not in self._vens:
            reason = "no VEN stands for this device"
            return Refused(setpoint_id="", device_id=device_id, at=self._clock.now(), reason=reason)
        event = self._service.book.find(order_id, device_id)
        if event is None or event.setpoint.valid_until <= self._clock.now():
            return Applied(setpoint_id="", device_id=device_id, at=self._clock.now())
        if event.setpoint.revision > revision:
            reason = f"it holds revision {event.setpoint.revision}"
            return Refused(setpoint_id="", device_id=device_id, at=self._clock.now(), reason=reason)
        if not event.cancelled:
            event = await self._service.cancel(event)
        return await self._acknowledged(event)

    async def read_back(self, device_id: str) -> ReadBack:
        """What the VEN agreed to. Raises DeviceError while it is not registered."""
        ven = self._ven(device_id)
        if self._service.registration(ven) is None:
            msg = f"VEN {ven.ven_name} is not registered"
            raise DeviceError(msg, device_id=device_id, retryable=True)
        now = self._clock.now()
        accepted = [event for event in self._service.book.of(ven.ven_id, now) if event.accepted]
        running = [event for event in accepted if event.setpoint.valid_from <= now]
        if not running:
            return ReadBack(device_id=device_id, at=now, active=False)
        setpoint = max(running, key=lambda event: event.setpoint.valid_from).setpoint
        return ReadBack(
            device_id=device_id,
            at=now,
            active=True,
            setpoint_id=setpoint.id,
            setpoint_kw=setpoint.power_kw,
            lease_remaining_s=(setpoint.valid_until - now).total_seconds(),
        )

    def connected(self, device_id: str) -> bool:
        """Whether the VEN spoke within three polls."""
        ven = self._vens.get(device_id)
        return ven is not None and self._service.present(ven)

    async def _publish(self, setpoint: Setpoint) -> _Pending | SetpointOutcome:
        """Make one setpoint an event, or say why not."""
        now, ven = self._clock.now(), self._vens.get(setpoint.device_id)
        if ven is None:
            return refused(setpoint, now, "no VEN stands for this device")
        verdict = inadmissible(setpoint, ven.profile, now)
        if verdict is not None:
            return verdict
        if self._service.registration(ven) is None:
            return unreachable(setpoint, now, f"VEN {ven.ven_name} is not registered")
        try:
            await self._service.offer(setpoint, ven)
        except ValueError as error:
            return refused(setpoint, now, str(error))
        return _Pending(setpoint, self._deadline(setpoint))

    def _settled(self, item: _Pending) -> SetpointOutcome | None:
        setpoint = item.setpoint
        event = self._service.book.find(setpoint.order_id, setpoint.device_id)
        overdue = self._clock.monotonic() >= item.deadline
        outcome = settled(setpoint, event, self._clock.now(), overdue=overdue)
        if isinstance(outcome, Unreachable) and event is not None:
            self._service.book.withdraw(event)
        return outcome

    async def _acknowledged(self, event: EventRecord) -> SetpointOutcome:
        """Wait for the VEN to acknowledge a cancellation."""
        setpoint, deadline = event.setpoint, self._deadline(event.setpoint)
        with self._waking() as wake:
            while True:
                wake.clear()
                current = self._service.book.find(setpoint.order_id, setpoint.device_id)
                overdue = self._clock.monotonic() >= deadline
                now = self._clock.now()
                outcome = released(setpoint.device_id, current, now, overdue=overdue)
                if outcome is not None:
                    return outcome
                await self._until(wake, deadline)

    async def _until(self, wake: asyncio.Event, deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                await wake.wait()

    def _deadline(self, setpoint: Setpoint) -> float:
        """The answer must be there before the timeout and before the setpoint's end."""
        left = (setpoint.valid_until - self._clock.now()).total_seconds()
        wait = min(self._config.answer_timeout_s, max(0.0, self._clock.wall_seconds(left)))
        return self._clock.monotonic() + wait

    @contextlib.contextmanager
    def _waking(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever a VEN answered or was registered."""
        wake = asyncio.Event()
        self._wakes.add(wake)
        try:
            yield wake
        finally:
            self._wakes.discard(wake)

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    def _ven(self, device_id: str) -> OpenAdrVen:
        try:
            return self._vens[device_id]
        except KeyError:
            msg = f"no VEN stands for device {device_id}"
            raise DeviceError(msg, device_id=device_id, retryable=False) from None
