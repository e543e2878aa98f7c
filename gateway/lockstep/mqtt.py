"""MQTT devices of a virtual day: real payloads through the real codec, intake and presence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from adapters.mqtt.exchange import Expected, MqttDevice
from adapters.mqtt.inbound import Inbound, topics_of
from adapters.mqtt.intake import TelemetryIntake
from adapters.mqtt.packets import Publish
from adapters.mqtt.presence import Presence
from gateway.lockstep.adapter import LockstepAdapter
from gateway.lockstep.clock import LockstepClock
from gateway.lockstep.field import Field, Frame
from marketplace_core.ports import ReadingSink
from marketplace_core.simtime import identity


class LockstepMqtt(LockstepAdapter):
    """Commands go through the pipe, what devices publish through the codec."""

    def __init__(self, devices: Sequence[MqttDevice], field: Field, clock: LockstepClock) -> None:
        super().__init__("mqtt", [device.profile for device in devices], field, clock)
        self._field = field
        self._clock = clock
        self._topics = topics_of(devices)
        self._presence = Presence(clock, devices)

    def connected(self, device_id: str) -> bool:
        """Whether it was heard of, and its broker did not say that it is gone."""
        return self._presence.recent(device_id)

    async def run(self, sink: ReadingSink, *, ready: Callable[[], None]) -> None:
        """Take messages until cancelled."""
        intake = TelemetryIntake(sink, identity(), self._stored)
        inbound = Inbound(
            self._topics, sink=sink, intake=intake, presence=self._presence,
            expected=Expected(), clock=self._clock,
        )  # fmt: skip
        taker = _Messages(inbound)
        self._field.attach("mqtt", taker)
        ready()
        try:
            await intake.run()
        finally:
            self._field.detach("mqtt", taker)

    def _stored(self, device_id: str, boot: int, through: int) -> None:
        self._field.pipe.ask("stored", device=device_id, boot=boot, through=through)


class _Messages:
    """One session with the broker for the whole day: whoever acknowledges is always the same."""

    def __init__(self, inbound: Inbound) -> None:
        self._inbound = inbound
        self._left: set[int] = set()
        self._done = asyncio.Event()

    async def arrived(self, frames: Sequence[Frame]) -> None:
        """Return once all of them are dealt with."""
        if not frames:
            return
        self._left = set(range(1, len(frames) + 1))
        self._done.clear()
        self._inbound.take(
            [
                Publish(frame["topic"].encode(), frame["payload"], mid, again=False)
                for mid, frame in enumerate(frames, start=1)
            ],
            self._acknowledge,
        )
        await self._done.wait()

    def _acknowledge(self, mids: Sequence[int]) -> None:
        self._left.difference_update(mids)
        if not self._left:
            self._done.set()
