"""MQTT devices behind the DeviceAdapter port."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final, Literal

import msgspec
import structlog

from adapters.base import refuse
from adapters.mqtt import wire
from adapters.mqtt.intake import TelemetryIntake
from adapters.mqtt.link import MqttBroker, MqttLink
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
from marketplace_core.errors import DeviceError, StoreError
from marketplace_core.ports import Clock, ReadingSink, TimeMap
from marketplace_core.units import Kw

_SUBSCRIPTIONS: Final = tuple(
    f"flexway/v{wire.VERSION}/+/+/+/{kind}" for kind in ("telemetry", "ack", "status")
)
_GATHER_S: Final = 0.002
"""Wall seconds that acknowledgements are gathered for one batch of outcomes."""
_log = structlog.get_logger(__name__)


class MqttDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device behind the broker."""

    device_id: str
    organisation: str
    profile: DeviceProfile


Answers = asyncio.Queue[wire.Acknowledgement]


class MqttAdapter:
    """Implements the DeviceAdapter port over one broker."""

    protocol = "mqtt"

    def __init__(
        self,
        broker: MqttBroker,
        devices: Iterable[MqttDevice],
        *,
        clock: Clock,
        time_map: TimeMap,
        ack_timeout_s: float,
    ) -> None:
        """`ack_timeout_s`: wall seconds that a device has to answer a command."""
        self._devices = {device.device_id: device for device in devices}
        self._clock = clock
        self._time = time_map
        self._ack_timeout_s = ack_timeout_s
        self._link = MqttLink(broker, _SUBSCRIPTIONS, self._on_message)
        self._pending: dict[tuple[str, str], Answers] = {}
        self._online: dict[str, bool] = {}
        self._numbers = itertools.count(1)
        self._sink: ReadingSink | None = None
        self._intake: TelemetryIntake | None = None

    def profiles(self) -> Sequence[DeviceProfile]:
        """Every device of this adapter."""
        return [device.profile for device in self._devices.values()]

    def connected(self, device_id: str) -> bool:
        """Whether the session is up and the device has not said (or had its Will say) offline."""
        return self._link.connected and self._online.get(device_id, False)

    async def run(self, sink: ReadingSink, *, ready: Callable[[], None]) -> None:
        """Hold the session and take telemetry until cancelled."""
        self._sink = sink
        self._intake = TelemetryIntake(sink, self._time, self._confirm_stored)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._intake.run())
            tasks.create_task(self._link.run(ready))

    async def issue(self, setpoints: Sequence[Setpoint]) -> AsyncIterator[list[SetpointOutcome]]:
        """Publish all commands at once, then yield outcomes as acknowledgements arrive."""
        answers: Answers = asyncio.Queue()
        waiting: dict[str, Setpoint] = {}
        at_once: list[SetpointOutcome] = []
        for setpoint in setpoints:
            outcome = self._send(setpoint, answers)
            if outcome is None:
                waiting[setpoint.id] = setpoint
            else:
                at_once.append(outcome)
        try:
            if at_once:
                yield at_once
            async for batch in self._gather(waiting, answers):
                yield batch
        finally:
            for key in [(s.id, s.device_id) for s in setpoints]:
                if self._pending.get(key) is answers:
                    del self._pending[key]

    async def release(self, device_id: str, *, order_id: str, revision: int) -> SetpointOutcome:
        """Return a device to its fallback."""
        command = self._command("release", order_id=order_id, revision=revision)
        at = self._clock.now()
        try:
            answer = await self._ask(device_id, command)
        except DeviceError as error:
            kind = Unreachable if error.retryable else Unconfirmed
            return kind(setpoint_id="", device_id=device_id, at=at, reason=str(error))
        return self._outcome("", device_id, answer)

    async def read_back(self, device_id: str) -> ReadBack:
        """Ask a device what is in force; DeviceError when it does not answer."""
        answer = await self._ask(device_id, self._command("query"))
        return ReadBack(
            device_id=device_id,
            at=self._clock.now(),
            active=answer.setpoint_id is not None,
            setpoint_id=answer.setpoint_id,
            setpoint_kw=None if answer.power_w is None else Kw(answer.power_w / 1000.0),
            lease_remaining_s=self._market_seconds(answer.lease_s),
        )

    def _command(
        self, kind: Literal["release", "query"], *, order_id: str = "", revision: int = 0
    ) -> wire.Command:
        name = f"{kind}-{next(self._numbers)}-{self._clock.now().timestamp():.6f}"
        return wire.Command(
            kind=kind, id=name, order_id=order_id, revision=revision, ttl_s=self._ack_timeout_s
        )

    def _send(self, setpoint: Setpoint, answers: Answers) -> SetpointOutcome | None:
        """Publish one setpoint; an outcome when nothing was sent."""
        device = self._devices.get(setpoint.device_id)
        at = self._clock.now()
        refused = refuse(setpoint, device.profile if device else None, at)
        if refused is not None or device is None:
            return refused
        if self._online.get(setpoint.device_id) is False:
            return self._unreachable(setpoint, "the device is offline")
        lasts = self._clock.wall_seconds((setpoint.valid_until - at).total_seconds())
        command = wire.Command(
            kind="set",
            id=setpoint.id,
            order_id=setpoint.order_id,
            revision=setpoint.revision,
            power_w=setpoint.power_kw * 1000.0,
            lease_s=self._clock.wall_seconds(setpoint.lease_s),
            ttl_s=min(lasts, self._ack_timeout_s),
            valid_for_s=lasts,
        )
        self._pending[setpoint.id, setpoint.device_id] = answers
        if self._publish(device, command, expiry_s=int(lasts)):
            return None
        return self._unreachable(setpoint, "the broker is not connected")

    def _publish(self, device: MqttDevice, command: wire.Command, *, expiry_s: int) -> bool:
        topic = wire.topic(device.organisation, device.device_id, "command")
        return self._link.publish(
            topic, wire.encode(command), expiry_s=expiry_s, correlation=command.id
        )

    async def _gather(
        self, waiting: dict[str, Setpoint], answers: Answers
    ) -> AsyncIterator[list[SetpointOutcome]]:
        deadline = self._clock.monotonic() + self._ack_timeout_s
        while waiting:
            try:
                async with asyncio.timeout(deadline - self._clock.monotonic()):
                    first = await answers.get()
                    await asyncio.sleep(_GATHER_S)
            except TimeoutError:
                break
            batch = [first, *(answers.get_nowait() for _ in range(answers.qsize()))]
            outcomes: list[SetpointOutcome] = []
            for answer in batch:
                setpoint = waiting.pop(answer.id, None)
                if setpoint is not None:
                    outcomes.append(self._outcome(setpoint.id, setpoint.device_id, answer))
            if outcomes:
                yield outcomes
        if waiting:
            yield [
                Unconfirmed(
                    setpoint_id=setpoint.id, device_id=setpoint.device_id, at=self._clock.now(),
                    reason=f"no acknowledgement within {self._ack_timeout_s:g} s",
                )
                for setpoint in waiting.values()
            ]  # fmt: skip

    async def _ask(self, device_id: str, command: wire.Command) -> wire.Acknowledgement:
        device = self._devices.get(device_id)
        if device is None:
            raise DeviceError("no such device is bound here", device_id=device_id, retryable=False)
        answers: Answers = asyncio.Queue()
        key = (command.id, device_id)
        self._pending[key] = answers
        try:
            if not self._publish(device, command, expiry_s=int(self._ack_timeout_s)):
                raise DeviceError(
                    "the broker is not connected", device_id=device_id, retryable=True
                )
            async with asyncio.timeout(self._ack_timeout_s):
                return await answers.get()
        except TimeoutError as error:
            raise DeviceError(
                f"no answer within {self._ack_timeout_s:g} s", device_id=device_id, retryable=True
            ) from error
        finally:
            del self._pending[key]

    async def _on_message(self, topic: str, payload: bytes) -> None:
        """Return when the broker may be told that the message is dealt with."""
        sink, intake = self._sink, self._intake
        if sink is None or intake is None:
            raise StoreError("the adapter is not running")
        try:
            await self._route(intake, topic, payload)
        except wire.WireError as error:
            # Acknowledged all the same: poison that comes back for ever helps nobody.
            sink.quarantine(source=topic, reason=str(error), evidence=error.evidence)

    async def _route(self, intake: TelemetryIntake, topic: str, payload: bytes) -> None:
        organisation, device_id, kind = wire.split_topic(topic)
        device = self._devices.get(device_id)
        if device is None or device.organisation != organisation:
            raise wire.WireError(f"no device {organisation}/{device_id} is bound", payload)
        if kind == "telemetry":
            self._online[device_id] = True
            await intake.take(device_id, wire.decode_telemetry(payload))
        elif kind == "ack":
            self._acknowledged(device_id, wire.decode_acknowledgement(payload))
        elif payload:
            self._online[device_id] = wire.decode_status(payload).online

    def _acknowledged(self, device_id: str, answer: wire.Acknowledgement) -> None:
        answers = self._pending.get((answer.id, device_id))
        if answers is not None:
            answers.put_nowait(answer)

    def _confirm_stored(self, device_id: str, boot: int, through: int) -> None:
        device = self._devices[device_id]
        topic = wire.topic(device.organisation, device_id, "stored")
        self._link.publish(topic, wire.encode(wire.Stored(boot=boot, through=through)))

    def _outcome(
        self, setpoint_id: str, device_id: str, answer: wire.Acknowledgement
    ) -> SetpointOutcome:
        at = self._clock.now()
        if answer.status == "applied":
            return Applied(
                setpoint_id=setpoint_id, device_id=device_id, at=at,
                read_back_kw=None if answer.power_w is None else Kw(answer.power_w / 1000.0),
                lease_remaining_s=self._market_seconds(answer.lease_s),
            )  # fmt: skip
        return Refused(
            setpoint_id=setpoint_id, device_id=device_id, at=at,
            reason=answer.reason or f"the device says {answer.status}",
        )  # fmt: skip

    def _unreachable(self, setpoint: Setpoint, reason: str) -> Unreachable:
        return Unreachable(
            setpoint_id=setpoint.id, device_id=setpoint.device_id, at=self._clock.now(),
            reason=reason,
        )  # fmt: skip

    def _market_seconds(self, wall_s: float | None) -> float | None:
        return None if wall_s is None else wall_s * self._time.speed
