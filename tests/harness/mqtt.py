"""Adapter, devices and brokers of the MQTT tests, and a wire that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from adapters.mqtt.adapter import MqttAdapter
from adapters.mqtt.adapter import MqttDevice as Binding
from adapters.mqtt.link import MqttBroker, Noted, unnoted
from firmware_sim.servers.mqtt import MqttDevice
from gateway.children import Child
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint, SetpointOutcome
from marketplace_core.units import Kw
from tests.harness.clocks import IdentityTime, WallClock, eventually
from tests.harness.lab import HOST, free_port, wait_for_port
from tests.harness.sinks import ListSink

ORG = "org_v"
SILENT = "ev-silent"
"""Bound, but nobody plays it."""


@contextmanager
def embedded(folder: Path, *arguments: str, lab: bool = True) -> Iterator[int]:
    """The embedded broker as a process of its own; its port."""
    ready = folder / "broker.ready.json"
    options = [*(("--lab",) if lab else ()), *arguments]
    child = Child(
        "broker", ["gateway.broker", "--port", "0", "--ready-file", str(ready), *options], folder
    )
    try:
        yield child.wait_ready()["port"]
    finally:
        assert child.stop() == 0, child.tail()


class Mosquitto:
    """A broker that can be stopped and started again on the same port, as it was."""

    def __init__(self, folder: Path, *settings: str, anonymous: bool = True, port: int = 0) -> None:
        self.port = port or free_port()
        self._folder = folder
        lines = [
            f"listener {self.port} {HOST}",
            f"allow_anonymous {str(anonymous).lower()}",
            f"user {getpass.getuser()}",  # started by root it would drop to one that reads nothing
        ]
        self._path = folder / "mosquitto.conf"
        self._path.write_text("\n".join([*lines, *settings]) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "-c", str(self._path)], stdout=log, stderr=log
            )
        try:
            wait_for_port(self.port)
        except TimeoutError:
            self.stop()
            raise

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def kill(self) -> None:
        """End it as a crash would: what it has not saved is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def reload(self) -> None:
        """Let it read its access files again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()


class Relay:
    """A TCP relay in front of a broker: `cut` ends every connection without a goodbye.

    What was cut may be back within milliseconds, sooner than anybody looks: whoever waits to
    see the loss lets nothing through meanwhile (`accepting`, `down`).
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.accepting = True
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Cut, and let nothing through until the end."""
        self.accepting = False
        self.cut()
        yield
        self.accepting = True

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await eventually(lambda: not self._writers, what="the relay to be empty")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.accepting:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        if not self.accepting:  # cut while it was being made
            for each in pair:
                each.transport.abort()
            return
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, far_writer))
                tasks.create_task(_pump(far_reader, writer))
        finally:
            self._writers -= pair


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


def profile(device_id: str) -> DeviceProfile:
    return DeviceProfile(
        device_id=device_id, protocol="mqtt", min_kw=Kw(-7.0), max_kw=Kw(0.0),
        control=ControlKind.LIMIT, lease=LeaseKind.TIME_TO_LIVE, lease_s=600.0,
    )  # fmt: skip


def setpoint(device_id: str, power_kw: float = -2.0, **changes: object) -> Setpoint:
    now = datetime.now(UTC)
    fields = {
        "id": f"spt_{device_id}", "order_id": "ord_1", "revision": 0, "device_id": device_id,
        "power_kw": Kw(power_kw), "valid_from": now, "valid_until": now + timedelta(minutes=10),
        "lease_s": 600.0,
    }  # fmt: skip
    return Setpoint(**{**fields, **changes})


def reading(sequence: int) -> list[object]:
    start_us = 1_500_000_000_000_000 + sequence * 60_000_000
    return [sequence, start_us, 60.0, -6600.0, None, None, True]


def gateway(port: int, names: Sequence[str], *, version: int = 5, answer_s: float = 5.0,
            noted: Noted = unnoted, **session: object) -> MqttAdapter:  # fmt: skip
    fields = {"host": HOST, "port": port, "client_id": "gateway", "version": version, **session}
    return MqttAdapter(
        MqttBroker(**fields),
        [Binding(device_id=name, organisation=ORG, profile=profile(name)) for name in names],
        clock=WallClock(), time_map=IdentityTime(), ack_timeout_s=answer_s, noted=noted,
    )  # fmt: skip


class Rig:
    """An adapter, its sink and some devices on one broker."""

    def __init__(self, adapter: MqttAdapter, port: int, names: Sequence[str]) -> None:
        self.port = port
        self.sink = ListSink()
        self.adapter = adapter
        self.devices = {name: MqttDevice(name, ORG, boot=1, resend_s=1.0) for name in names}

    async def issue(self, *setpoints: Setpoint) -> dict[str, SetpointOutcome]:
        outcomes = [o async for batch in self.adapter.issue(setpoints) for o in batch]
        assert len(outcomes) == len(setpoints)
        return {outcome.device_id: outcome for outcome in outcomes}

    async def present(self, *names: str, seconds: float = 10.0) -> None:
        await eventually(
            lambda: all(self.adapter.connected(name) for name in names or self.devices),
            seconds=seconds,
            what="presence",
        )


@asynccontextmanager
async def rig(
    port: int, *names: str, version: int = 5, answer_s: float = 5.0, gateway_port: int = 0,
    device_port: int = 0, **session: object,
) -> AsyncIterator[Rig]:  # fmt: skip
    """Everything running and present; either side may go through a relay's port."""
    adapter = gateway(
        gateway_port or port, (*names, SILENT), version=version, answer_s=answer_s, **session
    )
    made = Rig(adapter, port, names)
    ready = asyncio.Event()
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = [tasks.create_task(made.adapter.run(made.sink, ready=ready.set))]
        running += [
            tasks.create_task(d.run(HOST, device_port or port)) for d in made.devices.values()
        ]
        await asyncio.wait_for(ready.wait(), 10)
        await made.present()
        yield made
        for task in running:
            task.cancel()
