"""A simulated device that speaks our MQTT profile, on aiomqtt and msgpack.

The payloads are packed by hand on purpose: two independent implementations of the
profile meet on the wire. Only the topics come from the gateway's codec.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiomqtt
import msgpack

from adapters.mqtt.wire import Kind, topic
from firmware_sim.servers.mqtt_control import Control, Log

_KEPT: Final = 10_000
"""Readings the device keeps until it is told that they are stored."""
_BATCH: Final = 200
"""Readings in one message."""
_RETRY_S: Final = 0.5
"""Longest wait before the next try to connect; a random part of it is taken."""
Reading = list[Any]
"""`[sequence, start_us, seconds, power_w, sample_w, soc_wh, available]`, wall time and watts."""


class MqttDevice:
    """Firmware of one device: its link, its presence and its buffer of readings."""

    def __init__(
        self,
        device_id: str,
        organisation: str,
        *,
        boot: int,
        monotonic: Callable[[], float] = time.monotonic,
        log: Log = lambda _entry: None,
        accepts: Callable[[float], str] = lambda _kw: "",
        resend_s: float = 30.0,
        kept: int = _KEPT,
    ) -> None:
        """`log` hears of every command and effect; `accepts` gives a reason to refuse, or "".

        After `resend_s` wall seconds without a `stored`, what is kept goes out again; at
        most `kept` readings are, the oldest go first.
        """
        self.device_id = device_id
        self.organisation = organisation
        self.boot = boot
        self.control = Control(device_id, monotonic=monotonic, log=log, accepts=accepts)
        self.dropped = 0
        """Readings lost because the buffer was full."""
        self.working = asyncio.Event()
        """Clear it to make the firmware busy: commands wait in its queue meanwhile."""
        self.working.set()
        self._monotonic = monotonic
        self._resend_s = resend_s
        self._kept: deque[Reading] = deque(maxlen=kept)
        self._sent_through = -1
        self._fresh = asyncio.Event()
        self._outbox: deque[tuple[str, bytes]] = deque()
        self._arrived: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._online = asyncio.Event()
        self._online.set()
        self._offline = asyncio.Event()

    def commanded_kw(self) -> float | None:
        """Power the device is told to hold now; None = its own fallback."""
        return self.control.commanded_kw()

    @property
    def unconfirmed(self) -> int:
        """Readings that nobody has confirmed as stored yet."""
        return len(self._kept)

    def report(self, reading: Reading) -> None:
        """Keep a reading and send it; its sequence counts up from zero in each boot."""
        self.dropped += len(self._kept) == self._kept.maxlen
        self._kept.append(reading)
        self._fresh.set()

    def replay(self) -> None:
        """Send everything that is kept again, as a device that doubts its link would."""
        self._sent_through = -1
        self._fresh.set()

    def inject(self, kind: Kind, payload: bytes) -> None:
        """Publish raw bytes as this device: malformed messages."""
        self._outbox.append((self._topic(kind), payload))
        self._fresh.set()

    def go_offline(self) -> None:
        """Say goodbye and disconnect, until `go_online`."""
        self._online.clear()
        self._offline.set()

    def go_online(self) -> None:
        """Connect again."""
        self._offline.clear()
        self._online.set()

    async def run(
        self, host: str, port: int, username: str | None = None, password: str | None = None
    ) -> None:
        """Hold the link until cancelled; come back whenever it is lost."""
        will = aiomqtt.Will(self._topic("status"), self._status(online=False), qos=1, retain=True)
        while True:
            await self._online.wait()
            with contextlib.suppress(aiomqtt.MqttError):
                # A clean session: the broker must not keep commands for an absent device.
                async with aiomqtt.Client(
                    host, port, username=username, password=password, will=will,
                    identifier=self.device_id, keepalive=10, clean_session=True,
                    max_queued_outgoing_messages=_KEPT,
                ) as client:  # fmt: skip
                    await self._session(client)
            await asyncio.sleep(random.uniform(0.0, _RETRY_S))  # noqa: S311 - jitter

    async def _session(self, client: aiomqtt.Client) -> None:
        await client.subscribe([(self._topic("command"), 1), (self._topic("stored"), 1)])
        await client.publish(self._topic("status"), self._status(online=True), qos=1, retain=True)
        self.replay()  # whatever is not confirmed goes out again
        try:
            async with asyncio.TaskGroup() as tasks:
                parts = [self._listen(client), self._obey(client), self._publish(client)]
                running = [tasks.create_task(part) for part in parts]
                await self._offline.wait()
                for task in running:
                    task.cancel()
        except ExceptionGroup as group:
            lost, bugs = group.split(aiomqtt.MqttError)
            if bugs is not None or lost is None:
                raise
            return
        status = self._status(online=False)
        await client.publish(self._topic("status"), status, qos=1, retain=True)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = bytes(message.payload)
            # A broker may hand out what was never subscribed to: amqtt 0.12 sends a new
            # session every retained message that anybody subscribes to.
            if message.topic.value == self._topic("stored"):
                self._forget(msgpack.unpackb(payload))
            elif message.topic.value == self._topic("command"):
                self._arrived.put_nowait((self._monotonic(), payload))

    async def _obey(self, client: aiomqtt.Client) -> None:
        while True:
            arrived, payload = await self._arrived.get()
            await self.working.wait()
            answer = self.control.answer(msgpack.unpackb(payload), arrived)
            await client.publish(self._topic("ack"), msgpack.packb(answer), qos=1)

    async def _publish(self, client: aiomqtt.Client) -> None:
        while True:
            try:
                async with asyncio.timeout(self._resend_s if self._kept else None):
                    await self._fresh.wait()
            except TimeoutError:
                self._sent_through = -1
            self._fresh.clear()
            while self._outbox:
                where, payload = self._outbox.popleft()
                await client.publish(where, payload, qos=1)
            await self._send_readings(client)

    async def _send_readings(self, client: aiomqtt.Client) -> None:
        waiting = [reading for reading in self._kept if reading[0] > self._sent_through]
        for start in range(0, len(waiting), _BATCH):
            batch = waiting[start : start + _BATCH]
            oldest = self._kept[0][0] if self._kept else batch[0][0]
            message = {"v": 1, "boot": self.boot, "readings": batch, "oldest": oldest}
            self._sent_through = batch[-1][0]
            await client.publish(self._topic("telemetry"), msgpack.packb(message), qos=1)

    def _forget(self, stored: Mapping[str, int]) -> None:
        if stored["boot"] == self.boot:
            while self._kept and self._kept[0][0] <= stored["through"]:
                self._kept.popleft()

    def _topic(self, kind: Kind) -> str:
        return topic(self.organisation, self.device_id, kind)

    def _status(self, *, online: bool) -> bytes:
        # JSON on purpose: the profile lets devices send it.
        return json.dumps({"v": 1, "online": online, "boot": self.boot}).encode()
