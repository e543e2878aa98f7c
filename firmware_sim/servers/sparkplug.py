"""A Sparkplug B edge node with one battery behind it, on aiomqtt."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections import deque
from typing import Final

import aiomqtt

from adapters.mqtt.sparkplug_payload import DataType, Metric, Payload
from adapters.mqtt.sparkplug_topic import Topic, Verb, decode_state, parse, state_topic
from adapters.mqtt.sparkplug_wire import decode, encode
from firmware_sim.servers.mqtt import end_if_cancelled
from firmware_sim.servers.sparkplug_unit import SparkplugBattery

_RETRY_S: Final = 0.3
"""Longest wait before the next try to connect; a random part of it is taken."""
_TICK_S: Final = 0.02
_SEQUENCES: Final = 256
_BD_SEQ: Final = "bdSeq"
_REBIRTH: Final = "Node Control/Rebirth"
_KEPT: Final = 10_000
"""Samples kept while nobody hears the node; the oldest go first."""


class SparkplugNode:
    """Firmware of an edge node: its sessions, its sequence numbers and what it keeps meanwhile."""

    def __init__(
        self,
        group: str,
        edge_node: str,
        device: str,
        battery: SparkplugBattery,
        *,
        primary_host: str = "",
    ) -> None:
        """`primary_host`: it is born only once that host says that it is there.

        `device` is empty where the battery is the edge node itself.
        """
        self.battery = battery
        self.births = 0
        """Complete births since the start."""
        self.obeys = True
        """Clear it for a device that takes commands and says nothing."""
        self.ignored = 0
        """Commands that it took so."""
        self._group = group
        self._edge_node = edge_node
        self._device = device
        self._primary_host = primary_host
        self._bd_seq = -1
        self._seq = 0
        self._to_lose = 0
        self._outbox: deque[list[Metric]] = deque()
        self._kept: deque[list[Metric]] = deque(maxlen=_KEPT)
        self._born = False
        self._rebirth = asyncio.Event()
        self._host_there = asyncio.Event()
        self._online = asyncio.Event()
        self._online.set()
        self._client: aiomqtt.Client | None = None

    def report(self, *names: str) -> None:
        """Send metrics as they stand now, or keep them until somebody hears."""
        if not names:
            return
        at_ms = round(time.time() * 1000)
        if self._born:
            self._outbox.append(self.battery.reported(names, at_ms))
        else:
            self._kept.append(self.battery.reported(names, at_ms, historical=True))

    def measure(self, power_kw: float) -> None:
        """Measure a power, injection positive, and send it."""
        self.battery.values["Inverter/Power"] = -power_kw * 1000.0
        self.report("Inverter/Power")

    def lose_messages(self, count: int) -> None:
        """The next messages get lost on their way: their sequence numbers do not."""
        self._to_lose += count

    def die_behind(self) -> None:
        """The device behind the node goes away; the node says so."""
        self._outbox.append([])

    def be_born_again(self) -> None:
        """Send both certificates again, as if somebody had asked for it."""
        self._rebirth.set()

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
        self._online.set()

    async def run(
        self, host: str, port: int, username: str | None = None, password: str | None = None
    ) -> None:
        """Hold the session until cancelled; come back whenever it is lost."""
        while True:
            await self._online.wait()
            self._bd_seq = (self._bd_seq + 1) % _SEQUENCES
            will = aiomqtt.Will(self._topic(Verb.NDEATH), encode(self._death()), qos=1)
            with contextlib.suppress(aiomqtt.MqttError):
                async with aiomqtt.Client(
                    host, port, username=username, password=password, will=will,
                    identifier=username or self._edge_node, keepalive=10, clean_session=True,
                ) as client:  # fmt: skip
                    self._client = client
                    end_if_cancelled()
                    await self._session(client)
            self._client, self._born = None, False
            end_if_cancelled()
            await asyncio.sleep(random.uniform(0.0, _RETRY_S))  # noqa: S311 - jitter

    async def _session(self, client: aiomqtt.Client) -> None:
        topics = sorted({self._topic(Verb.NCMD), self._topic(Verb.DCMD)})
        if self._primary_host:
            self._host_there.clear()
            topics.append(state_topic(self._primary_host))
        await client.subscribe([(topic, 1) for topic in topics])
        end_if_cancelled()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(client))
                # Not a task as well: until Python 3.12 a group that ends while it is being
                # left forgets to take back the cancellation of its owner.
                await self._speak(client)
        except ExceptionGroup as group:
            lost, bugs = group.split(aiomqtt.MqttError)
            if bugs is not None or lost is None:
                raise

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            name, payload = message.topic.value, bytes(message.payload)
            if self._primary_host and name == state_topic(self._primary_host):
                if decode_state(payload).online:
                    self._host_there.set()
                continue
            metrics = decode(payload).metrics
            own = parse(name).verb is Verb.NCMD
            if own and any(one.name == _REBIRTH and one.value is True for one in metrics):
                self._rebirth.set()
            elif own and self._device:
                continue
            elif self.obeys:
                self.report(*self.battery.obey(metrics))
            else:
                self.ignored += 1

    async def _speak(self, client: aiomqtt.Client) -> None:
        if self._primary_host:
            await self._host_there.wait()
        await self._be_born(client)
        while True:
            if self._rebirth.is_set():
                await self._be_born(client)
            self.report(*self.battery.expire())
            while self._kept:
                await self._send(client, Verb.DDATA, self._kept.popleft())
            while self._outbox:
                metrics = self._outbox.popleft()
                await self._send(client, Verb.DDATA if metrics else Verb.DDEATH, metrics)
            await asyncio.sleep(_TICK_S)

    async def _be_born(self, client: aiomqtt.Client) -> None:
        """Both certificates, with the sequence from the start."""
        self._rebirth.clear()
        self._seq, at_ms = 0, round(time.time() * 1000)
        own = [
            self._death().metrics[0],
            Metric(name=_REBIRTH, timestamp_ms=at_ms, datatype=DataType.BOOLEAN, value=False),
        ]
        declared = self.battery.declared(at_ms)
        if self._device:
            await self._send(client, Verb.NBIRTH, own)
            await self._send(client, Verb.DBIRTH, declared)
        else:
            await self._send(client, Verb.NBIRTH, [*own, *declared])
        self.births += 1
        self._born = True

    async def _send(self, client: aiomqtt.Client, verb: Verb, metrics: list[Metric]) -> None:
        payload = Payload(
            timestamp_ms=round(time.time() * 1000), seq=self._seq, metrics=tuple(metrics)
        )
        self._seq = (self._seq + 1) % _SEQUENCES
        if self._to_lose and verb is Verb.DDATA:
            self._to_lose -= 1
            return
        await client.publish(self._topic(verb), encode(payload), qos=0)
        end_if_cancelled()

    def _death(self) -> Payload:
        at_ms = round(time.time() * 1000)
        number = Metric(
            name=_BD_SEQ, timestamp_ms=at_ms, datatype=DataType.INT64, value=self._bd_seq
        )
        return Payload(timestamp_ms=at_ms, metrics=(number,))

    def _topic(self, verb: Verb) -> str:
        if not self._device:
            verb = Verb("N" + verb.value[1:])
        device = self._device if verb.value.startswith("D") else ""
        return str(Topic(self._group, verb, self._edge_node, device))
