"""A simulated device that speaks our MQTT profile, on aiomqtt and msgpack.

The payloads are packed by hand on purpose: two independent implementations of the
profile meet on the wire. Only the topics come from the gateway's codec.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import aiomqtt
import msgpack

from adapters.mqtt.wire import Kind, topic
from firmware_sim.servers.mqtt_buffer import KEPT, ReadingBuffer, Row, status
from firmware_sim.servers.mqtt_control import Control, Log

_RETRY_S: Final = 0.5
"""Longest wait before the next try to connect; a random part of it is taken."""


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
        kept: int = KEPT,
    ) -> None:
        """`log` hears of every command and effect; `accepts` gives a reason to refuse, or "".

        After `resend_s` wall seconds without a `stored`, what is kept goes out again; at
        most `kept` readings are, the oldest go first.
        """
        self.device_id = device_id
        self.organisation = organisation
        self.boot = boot
        self.control = Control(device_id, monotonic=monotonic, log=log, accepts=accepts)
        self.working = asyncio.Event()
        """Clear it to make the firmware busy: commands wait in its queue meanwhile."""
        self.working.set()
        self._monotonic = monotonic
        self._resend_s = resend_s
        self._buffer = ReadingBuffer(boot, kept)
        self._quiet_since: float | None = None
        self._fresh = asyncio.Event()
        self._outbox: deque[tuple[str, bytes]] = deque()
        self._arrived: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._online = asyncio.Event()
        self._online.set()
        self._offline = asyncio.Event()
        self._client: aiomqtt.Client | None = None

    def commanded_kw(self) -> float | None:
        """Power the device is told to hold now; None = its own fallback."""
        return self.control.commanded_kw()

    @property
    def unconfirmed(self) -> int:
        """Readings that nobody has confirmed as stored yet."""
        return len(self._buffer)

    @property
    def dropped(self) -> int:
        """Readings lost because the buffer was full."""
        return self._buffer.dropped

    def report(self, row: Row) -> None:
        """Keep a reading and send it; its sequence counts up from zero in each boot."""
        self._buffer.keep(row)
        self._fresh.set()

    def replay(self) -> None:
        """Send everything that is kept again, as a device that doubts its link would."""
        self._buffer.rewind()
        self._fresh.set()

    def replay_dropped(self) -> bool:
        """Send an old message that it had dropped as stored; False when there is none yet."""
        payload = self._buffer.dropped_message()
        if payload is not None:
            self.inject("telemetry", payload)
        return payload is not None

    def inject(self, kind: Kind, payload: bytes) -> None:
        """Publish raw bytes as this device: malformed messages."""
        self._outbox.append((self._topic(kind), payload))
        self._fresh.set()

    def go_offline(self) -> None:
        """Say goodbye and disconnect, until `go_online`."""
        self._online.clear()
        self._offline.set()

    def lose_link(self) -> None:
        """Lose the connection without a goodbye, until `go_online`: the Will speaks."""
        self._online.clear()
        # aiomqtt has no way to lose a link on purpose: its paho client holds the socket.
        link = self._client and self._client._client.socket()  # noqa: SLF001
        if isinstance(link, socket.socket):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

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
                    max_queued_outgoing_messages=KEPT,
                ) as client:  # fmt: skip
                    self._client = client
                    end_if_cancelled()
                    if self._online.is_set():  # it may have gone while it was connecting
                        await self._session(client)
            self._client = None
            end_if_cancelled()
            await asyncio.sleep(random.uniform(0.0, _RETRY_S))  # noqa: S311 - jitter

    async def _session(self, client: aiomqtt.Client) -> None:
        await client.subscribe([(self._topic("command"), 1), (self._topic("stored"), 1)])
        await client.publish(self._topic("status"), self._status(online=True), qos=1, retain=True)
        end_if_cancelled()
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
            end_if_cancelled()

    async def _publish(self, client: aiomqtt.Client) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._resend_s if len(self._buffer) else None):
                    await self._fresh.wait()
            self._fresh.clear()
            self._rewind_when_quiet()
            while self._outbox:
                where, payload = self._outbox.popleft()
                await client.publish(where, payload, qos=1)
                end_if_cancelled()
            for payload in self._buffer.messages():
                await client.publish(self._topic("telemetry"), payload, qos=1)
                end_if_cancelled()

    def _forget(self, stored: Mapping[str, int]) -> None:
        kept = len(self._buffer)
        self._buffer.forget(stored)
        if len(self._buffer) < kept:
            self._quiet_since = None

    def _rewind_when_quiet(self) -> None:
        """Send what is kept again where nothing of it was confirmed for long.

        New readings go out meanwhile: one that got lost holds up every confirmation after it.
        """
        now = self._monotonic()
        if self._buffer.oldest_sent is None or self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since >= self._resend_s:
            self._buffer.rewind()
            self._quiet_since = now

    def _topic(self, kind: Kind) -> str:
        return topic(self.organisation, self.device_id, kind)

    def _status(self, *, online: bool) -> bytes:
        return status(self.boot, online=online)


def end_if_cancelled() -> None:
    """Obey a cancellation that came while the client had an answer or an error in hand.

    aiomqtt waits with `asyncio.wait_for`, which until Python 3.12 forgets a cancellation that
    comes together with the result, and leaving its context may raise over one.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
