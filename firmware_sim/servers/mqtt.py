"""A simulated device that speaks our MQTT profile, on aiomqtt and msgpack.

The payloads are packed by hand on purpose: two independent implementations of the
profile meet on the wire. Only the topics come from the gateway's codec.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiomqtt
import msgpack

from adapters.mqtt.wire import Kind, topic

_KEPT: Final = 10_000
"""Readings the device keeps until it is told that they are stored."""
_BATCH: Final = 200
_RETRY_S: Final = 0.25
_RESEND_S: Final = 2.0
"""A broker acknowledges what it has no subscriber for: only `stored` counts."""
Log = Callable[[Mapping[str, Any]], None]


class MqttDevice:
    """Firmware of one device: commands, leases, presence and a buffer of readings."""

    def __init__(
        self,
        device_id: str,
        organisation: str,
        *,
        boot: int,
        monotonic: Callable[[], float] = time.monotonic,
        log: Log = lambda _entry: None,
        accepts: Callable[[float], str] = lambda _kw: "",
    ) -> None:
        """`log` hears of every command and effect; `accepts` gives a reason to refuse, or ""."""
        self.device_id = device_id
        self.organisation = organisation
        self.boot = boot
        self._monotonic = monotonic
        self._log = log
        self._accepts = accepts
        self._setpoint: dict[str, Any] | None = None
        self._lease_ends = 0.0
        self._valid_until = 0.0
        self._newest: dict[str, int] = {}
        self._kept: deque[list[Any]] = deque(maxlen=_KEPT)
        self._sent_through = -1
        self._fresh = asyncio.Event()
        self._outbox: deque[tuple[str, bytes]] = deque()
        self.online = True
        """Set to False to lose the link."""
        self.link_changed = asyncio.Event()

    def commanded_kw(self) -> float | None:
        """Power the device is told to hold now; None = its own fallback."""
        if self._setpoint is None:
            return None
        if self._monotonic() >= min(self._lease_ends, self._valid_until):
            self._log({"device": self.device_id, "effect": "fallback", "id": self._setpoint["id"]})
            self._setpoint = None
            return None
        watts: float = self._setpoint["power_w"]
        return watts / 1000.0

    def report(self, reading: list[Any]) -> None:
        """Keep a reading `[sequence, start_us, seconds, power_w, sample_w, soc_wh, available]`."""
        self._kept.append(reading)
        self._fresh.set()

    def inject(self, kind: Kind, payload: bytes) -> None:
        """Publish raw bytes as this device: malformed or replayed messages."""
        self._outbox.append((topic(self.organisation, self.device_id, kind), payload))
        self._fresh.set()

    @property
    def unconfirmed(self) -> int:
        """Readings that nobody has confirmed as stored yet."""
        return len(self._kept)

    async def run(
        self, host: str, port: int, username: str | None = None, password: str | None = None
    ) -> None:
        """Hold the link until cancelled; come back whenever it is lost."""
        will = aiomqtt.Will(self._topic("status"), self._status(online=False), qos=1, retain=True)
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with aiomqtt.Client(
                    host, port, username=username, password=password, will=will,
                    identifier=self.device_id, keepalive=10,
                    max_queued_outgoing_messages=_KEPT,
                ) as client:  # fmt: skip
                    await self._session(client)
            _leave_if_cancelled()
            await asyncio.sleep(_RETRY_S)
            while not self.online:
                await self.link_changed.wait()
                self.link_changed.clear()

    async def _session(self, client: aiomqtt.Client) -> None:
        await client.subscribe([(self._topic("command"), 1), (self._topic("stored"), 1)])
        await client.publish(self._topic("status"), self._status(online=True), qos=1, retain=True)
        self._sent_through = -1  # whatever is not confirmed goes out again
        self._fresh.set()
        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(client))
                tasks.create_task(self._publish(client))
                tasks.create_task(self._watch_link())

    async def _watch_link(self) -> None:
        while self.online:
            await self.link_changed.wait()
            self.link_changed.clear()
        raise aiomqtt.MqttError("the link is lost on purpose")

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = bytes(message.payload)
            if message.topic.value.endswith("/stored"):
                self._forget(msgpack.unpackb(payload))
            else:
                await self._command(client, msgpack.unpackb(payload))
            _leave_if_cancelled()

    async def _publish(self, client: aiomqtt.Client) -> None:
        while True:
            await self._something_to_send()
            while self._outbox:
                where, payload = self._outbox.popleft()
                await client.publish(where, payload, qos=1)
            waiting = [reading for reading in self._kept if reading[0] > self._sent_through]
            for start in range(0, len(waiting), _BATCH):
                batch = waiting[start : start + _BATCH]
                packed = msgpack.packb({"v": 1, "boot": self.boot, "readings": batch})
                await client.publish(self._topic("telemetry"), packed, qos=1)
                self._sent_through = batch[-1][0]
            _leave_if_cancelled()

    async def _something_to_send(self) -> None:
        """Wait for news; what nobody confirmed as stored for a while goes out again."""
        try:
            async with asyncio.timeout(_RESEND_S):
                await self._fresh.wait()
        except TimeoutError:
            self._sent_through = -1
        self._fresh.clear()

    def _forget(self, stored: Mapping[str, int]) -> None:
        if stored["boot"] == self.boot:
            while self._kept and self._kept[0][0] <= stored["through"]:
                self._kept.popleft()

    async def _command(self, client: aiomqtt.Client, command: dict[str, Any]) -> None:
        self._log({"device": self.device_id, "received": command["kind"], "id": command["id"]})
        status, reason = self._obey(command)
        held = self._setpoint if self.commanded_kw() is not None else None
        answer = {
            "v": 1, "id": command["id"], "status": status, "reason": reason,
            "setpoint_id": held and held["id"], "power_w": held and held["power_w"],
            "lease_s": held and max(0.0, self._lease_ends - self._monotonic()),
        }  # fmt: skip
        await client.publish(self._topic("ack"), msgpack.packb(answer), qos=1)

    def _obey(self, command: dict[str, Any]) -> tuple[str, str]:
        if command["kind"] == "query":
            return "applied", ""
        order, revision = command["order_id"], command["revision"]
        if revision < self._newest.get(order, 0):
            return "stale", f"revision {self._newest[order]} is in force"
        if command["kind"] == "release":
            if self._setpoint is not None and self._setpoint["order_id"] == order:
                self._log({"device": self.device_id, "effect": "release"})
                self._setpoint = None
            return "applied", ""
        if reason := self._accepts(command["power_w"] / 1000.0):
            return "refused", reason
        self._newest[order] = revision
        self._hold(command)
        return "applied", ""

    def _hold(self, command: dict[str, Any]) -> None:
        now = self._monotonic()
        repeat = self.commanded_kw() is not None and self._setpoint is not None
        if not (repeat and self._setpoint and self._setpoint["id"] == command["id"]):
            self._log({
                "device": self.device_id, "effect": "set", "id": command["id"],
                "power_w": command["power_w"],
            })  # fmt: skip
        self._setpoint = command
        self._lease_ends = now + command["lease_s"]
        self._valid_until = now + command["valid_for_s"]

    def _topic(self, kind: Kind) -> str:
        return topic(self.organisation, self.device_id, kind)

    def _status(self, *, online: bool) -> bytes:
        # JSON on purpose: the profile lets devices send it.
        return json.dumps({"v": 1, "online": online, "boot": self.boot}).encode()


def _leave_if_cancelled() -> None:
    """Raise a cancellation that got lost on the way.

    `asyncio.wait_for` of Python 3.11 returns the result and forgets the cancellation when
    both come at once; the client waits for every PUBACK with it.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
