"""MQTT devices behind the DeviceAdapter port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from adapters.base import refuse
from adapters.mqtt import wire
from adapters.mqtt.exchange import Answers, Expected, MqttDevice, Translator
from adapters.mqtt.inbound import Inbound, topics_of
from adapters.mqtt.intake import TelemetryIntake
from adapters.mqtt.link import MqttBroker, MqttLink, Noted, unnoted
from adapters.mqtt.packets import Publish
from adapters.mqtt.presence import Presence
from adapters.mqtt.session import Acknowledge
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import (
    ReadBack,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)
from marketplace_core.errors import DeviceError
from marketplace_core.ports import Clock, ReadingSink, TimeMap
from marketplace_core.shards import EVERY_SHARD, ShardRange
from marketplace_core.verification.reading import Reading

__all__ = ["MqttAdapter", "MqttBroker", "MqttDevice"]

Part = Literal["all", "telemetry", "commands"]
_PREFIX: Final = f"flexway/v{wire.VERSION}/+/+/+"
_GATHER_S: Final = 0.002
"""Wall seconds that acknowledgements are gathered for one batch of outcomes."""
_PRESENCE_S: Final = 0.5
"""Wall seconds after a connection within which the broker hands out retained presence."""
_STRIDE: Final = 200
"""Commands published before others get a turn on the event loop."""


def session_of(client_id: str, shards: ShardRange) -> str:
    """Client id of the session that takes these shards in: its own, so that it persists."""
    return client_id if shards.whole else f"{client_id}-{shards}"


def telemetry_filters(shards: ShardRange) -> list[str]:
    """What to subscribe to for the telemetry of these shards."""
    prefix = f"flexway/v{wire.VERSION}/+"
    if shards.whole:
        return [f"{prefix}/+/+/telemetry"]
    return [f"{prefix}/{shard:02x}/+/telemetry" for shard in range(shards.first, shards.last + 1)]


class UnpublishedError(DeviceError):
    """Nothing was sent."""


class MqttAdapter:
    """Implements the DeviceAdapter port over one broker, in two sessions.

    Telemetry waits for the disk before it is acknowledged, so it can fill its session's
    window; commands, their answers and presence have a session of their own beside it.
    """

    protocol = "mqtt"

    def __init__(
        self,
        broker: MqttBroker,
        devices: Iterable[MqttDevice],
        *,
        clock: Clock,
        time_map: TimeMap,
        ack_timeout_s: float,
        noted: Noted = unnoted,
        part: Part = "all",
        shards: ShardRange = EVERY_SHARD,
    ) -> None:
        """`ack_timeout_s`: wall seconds that a device has to answer a command.

        `part`: hold both sessions, or only that of telemetry, of `shards`, or of commands:
        another process has the other one.

        `noted` hears of every reason code that the broker gives: packet and words.
        Raises: ConfigError when a name cannot stand in a topic.
        """
        self._devices = {device.device_id: device for device in devices}
        self._topics = topics_of(self._devices.values())
        self._out = {
            device_id: {kind: name.encode() for kind, name in kinds.items()}
            for device_id, kinds in self._topics.items()
        }
        self._clock = clock
        self._time = time_map
        self._ack_timeout_s = ack_timeout_s
        control = msgspec.structs.replace(broker, client_id=f"{broker.client_id}-control")
        answers = (f"{_PREFIX}/ack", f"{_PREFIX}/status")
        self._control = MqttLink(control, answers, self._on_messages, noted=noted)
        taken = msgspec.structs.replace(broker, client_id=session_of(broker.client_id, shards))
        self._telemetry = MqttLink(taken, telemetry_filters(shards), self._on_messages, noted=noted)
        self._links = {
            "all": (self._control, self._telemetry), "telemetry": (self._telemetry,),
            "commands": (self._control,),
        }[part]  # fmt: skip
        self._translate = Translator(clock, time_map, ack_timeout_s)
        self._presence = Presence(clock, self._devices.values())
        self._presence_known_at = 0.0
        self._expected = Expected()
        self._intake: TelemetryIntake | None = None
        self._inbound: Inbound | None = None

    @property
    def gaps(self) -> dict[str, int]:
        """Readings given up as lost since the start, per device that lost any."""
        return {} if self._intake is None else self._intake.gaps()

    @property
    def given_up(self) -> int:
        """Readings given up as lost since the start, of all devices."""
        return sum(self.gaps.values())

    @property
    def shed(self) -> int:
        """Readings dropped since the start because the disk was too far behind."""
        return 0 if self._intake is None else self._intake.shed

    @property
    def link_up(self) -> bool:
        """Whether every session with the broker is up now."""
        return all(link.connected for link in self._links)

    @property
    def link_fault(self) -> str:
        """Why a session with the broker is down, in words; "" while all are up."""
        return next((link.fault for link in self._links if link.fault), "")

    def profiles(self) -> Sequence[DeviceProfile]:
        """Every device of this adapter."""
        return [device.profile for device in self._devices.values()]

    def connected(self, device_id: str) -> bool:
        """Whether commands can be sent and the device was heard of within three intervals."""
        return self._control.connected and self._presence.recent(device_id)

    async def run(self, sink: ReadingSink, *, ready: Callable[[], None]) -> None:
        """Hold the sessions and take telemetry until cancelled."""
        intake = self._intake = TelemetryIntake(sink, self._time, self._confirm_stored)
        self._inbound = Inbound(
            self._topics, sink=sink, intake=intake, presence=self._presence,
            expected=self._expected, clock=self._clock,
        )  # fmt: skip

        def on_up() -> None:
            if self.link_up:
                ready()

        def on_telemetry_up() -> None:
            self._control.hurry()
            on_up()

        def on_control_up() -> None:
            self._presence_known_at = self._clock.monotonic() + _PRESENCE_S
            self._telemetry.hurry()
            on_up()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(intake.run())
            for link in self._links:
                up = on_control_up if link is self._control else on_telemetry_up
                tasks.create_task(link.run(up))

    def reported(self, readings: Iterable[Reading]) -> None:
        """Telemetry that another process took in: its devices were heard of."""
        for reading in readings:
            if reading.series in self._devices:
                self._presence.reported(reading.series)

    async def issue(self, setpoints: Sequence[Setpoint]) -> AsyncIterator[list[SetpointOutcome]]:
        """Publish all commands at once, then yield outcomes as acknowledgements arrive."""
        answers: Answers = asyncio.Queue()
        waiting: dict[str, Setpoint] = {}
        try:
            heard, unheard = self._presence.split(setpoints)
            at_once = await self._send_all(heard, answers, waiting)
            if unheard:
                await self._presence_known()
                at_once += await self._send_all(unheard, answers, waiting)
            if at_once:
                yield at_once
            async for batch in self._gather(waiting, answers):
                yield batch
        finally:
            for setpoint in setpoints:
                self._expected.remove(setpoint.id, setpoint.device_id, answers)

    async def release(self, device_id: str, *, order_id: str, revision: int) -> SetpointOutcome:
        """Return a device to its fallback; tried whatever its presence says."""
        command = self._translate.request("release", order_id=order_id, revision=revision)
        at = self._clock.now()
        if device_id not in self._devices:
            reason = "no such device is bound here"
            return Refused(setpoint_id="", device_id=device_id, at=at, reason=reason)
        try:
            answer = await self._ask(device_id, command)
        except UnpublishedError as error:
            return Unreachable(setpoint_id="", device_id=device_id, at=at, reason=str(error))
        except DeviceError as error:
            return Unconfirmed(setpoint_id="", device_id=device_id, at=at, reason=str(error))
        return self._translate.outcome("", device_id, answer)

    async def read_back(self, device_id: str) -> ReadBack:
        """Ask a device what is in force; DeviceError when it does not answer."""
        answer = await self._ask(device_id, self._translate.request("query"))
        return self._translate.read_back(device_id, answer)

    async def _presence_known(self) -> None:
        """Give the broker the time to say who is there, just after connecting."""
        left = self._presence_known_at - self._clock.monotonic()
        if self._control.connected and left > 0:
            await asyncio.sleep(left)

    async def _send_all(
        self, setpoints: Sequence[Setpoint], answers: Answers, waiting: dict[str, Setpoint]
    ) -> list[SetpointOutcome]:
        """Publish; return the outcomes of those that were not sent."""
        at_once: list[SetpointOutcome] = []
        for start in range(0, len(setpoints), _STRIDE):
            now = self._clock.now()
            for setpoint in setpoints[start : start + _STRIDE]:
                outcome = self._send(setpoint, answers, now)
                if outcome is None:
                    waiting[setpoint.id] = setpoint
                else:
                    at_once.append(outcome)
            await asyncio.sleep(0)
        return at_once

    def _send(self, setpoint: Setpoint, answers: Answers, now: datetime) -> SetpointOutcome | None:
        """Publish one setpoint; an outcome when nothing was sent."""
        device_id = setpoint.device_id
        device = self._devices.get(device_id)
        refused = refuse(setpoint, device.profile if device else None, now)
        if refused is not None:
            return refused
        if not self._presence.reachable(device_id):
            never = self._presence.reachable(device_id) is None
            return self._unreachable(
                setpoint, "the device was never heard of" if never else "the device is offline"
            )
        self._expected.add(setpoint.id, device_id, answers)
        if self._publish(device_id, self._translate.setpoint(setpoint, now)):
            return None
        return self._unreachable(setpoint, "the broker is not connected")

    def _publish(self, device_id: str, command: wire.Command) -> bool:
        topics = self._out[device_id]
        return self._control.publish(
            topics["command"], wire.encode(command), expiry_s=command.ttl_s,
            correlation=command.id, answer_to=topics["ack"],
        )  # fmt: skip

    async def _gather(
        self, waiting: dict[str, Setpoint], answers: Answers
    ) -> AsyncIterator[list[SetpointOutcome]]:
        deadline = self._clock.monotonic() + self._ack_timeout_s
        while waiting:
            try:
                async with asyncio.timeout(deadline - self._clock.monotonic()):
                    first = await answers.get()
            except TimeoutError:
                break
            await asyncio.sleep(_GATHER_S)
            outcomes: list[SetpointOutcome] = []
            for answer in (first, *(answers.get_nowait() for _ in range(answers.qsize()))):
                setpoint = waiting.pop(answer.id, None)
                if setpoint is not None:
                    outcomes.append(
                        self._translate.outcome(setpoint.id, setpoint.device_id, answer)
                    )
            if outcomes:
                yield outcomes
        if waiting:
            yield self._translate.unanswered(waiting.values(), self._ack_timeout_s)

    async def _ask(self, device_id: str, command: wire.Command) -> wire.Acknowledgement:
        if device_id not in self._devices:
            raise UnpublishedError(
                "no such device is bound here", device_id=device_id, retryable=False
            )
        answers: Answers = asyncio.Queue()
        self._expected.add(command.id, device_id, answers)
        try:
            if not self._publish(device_id, command):
                raise UnpublishedError(
                    "the broker is not connected", device_id=device_id, retryable=True
                )
            async with asyncio.timeout(self._ack_timeout_s):
                return await answers.get()
        except TimeoutError as error:
            raise DeviceError(
                f"no answer within {self._ack_timeout_s:g} s", device_id=device_id, retryable=True
            ) from error
        finally:
            self._expected.remove(command.id, device_id, answers)

    def _on_messages(self, messages: Sequence[Publish], acknowledge: Acknowledge) -> None:
        if self._inbound is not None:
            self._inbound.take(messages, acknowledge)

    def _confirm_stored(self, device_id: str, boot: int, through: int) -> None:
        # At QoS 0: a device that misses one sends again what it kept, and is told again.
        topic = self._out[device_id]["stored"]
        self._telemetry.tell(topic, wire.encode(wire.Stored(boot=boot, through=through)))

    def _unreachable(self, setpoint: Setpoint, reason: str) -> Unreachable:
        return Unreachable(
            setpoint_id=setpoint.id, device_id=setpoint.device_id, at=self._clock.now(),
            reason=reason,
        )  # fmt: skip
