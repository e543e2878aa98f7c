"""Start and stop order of the service; one TaskGroup holds everything that runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine

from gateway.ingest import Ingest
from gateway.live import LiveState
from gateway.observability.health import Health
from gateway.reads import Reads
from gateway.stages.dispatch.conductor import Conductor
from gateway.stages.observe import Observe
from gateway.store.engine import migrate
from gateway.store.journal import read_heads
from gateway.store.readings import Quarantined, SqliteReadings
from gateway.store.roots import RootLog
from gateway.store.setpoints import OPEN, SetpointRow, SetpointState, setpoints_in
from gateway.store.writer import Writer
from gateway.street import Carrier
from marketplace_core.ports import Clock, DeviceAdapter

_ADAPTERS_WAIT_S: Final = 10.0
"""Wall seconds that dispatch waits for adapters before it starts without the late ones."""
_RESTORED: Final = (*OPEN, SetpointState.UNREACHABLE, SetpointState.UNCONFIRMED)
_log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """Uvicorn that leaves signals to us and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets=sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers: the application stops the server itself."""
        yield


@dataclass(frozen=True)
class Application:
    """Everything the bootstrap made, and how it runs together."""

    engine: Engine
    writer: Writer
    readings: SqliteReadings
    live: LiveState
    ingest: Ingest
    quarantine: asyncio.Queue[Quarantined]
    adapters: Mapping[str, DeviceAdapter]
    carriers: Sequence[Carrier]
    conductor: Conductor
    observe: Observe
    roots: RootLog
    root_every_s: float
    clock: Clock
    health: Health
    api: FastAPI
    listener: socket.socket
    tls: tuple[str, str] | None
    reads: Reads
    prepare: Callable[[], None]
    """Enters what the configuration names into the migrated database."""
    restore: Callable[[Sequence[SetpointRow]], None]
    """Hands open setpoints to adapters that have to know them before they answer devices."""

    async def run(self, stop: asyncio.Event, started: Callable[[], None]) -> None:
        """Run until `stop` is set; `started` is called once the API takes requests."""
        await asyncio.to_thread(migrate, self.engine)
        await asyncio.to_thread(self.prepare)
        self.writer.start()
        self.readings.start()
        self.live.update(await asyncio.to_thread(self.readings.latest))
        rows = await asyncio.to_thread(self._open_setpoints)
        self.restore(rows)
        self.conductor.restore(rows)
        try:
            await self._serve(stop, started)
        finally:
            self.readings.stop()
            self.writer.stop()
            self._write_root()
            self.reads.close()
            self.engine.dispose()

    async def _serve(self, stop: asyncio.Event, started: Callable[[], None]) -> None:
        server = self._server()
        ready = {protocol: asyncio.Event() for protocol in self.adapters}
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[self.listener]))
            work = [self._root_periodically(), self._keep_quarantined(), self.observe.run()]
            work += [carrier.run() for carrier in self.carriers]
            work += [
                self._adapter(adapter, ready[protocol])
                for protocol, adapter in self.adapters.items()
            ]
            work += [self._dispatch(ready), self._announce(server, started)]
            background = [tasks.create_task(part) for part in work]
            await stop.wait()
            _log.info("stopping")
            server.should_exit = True
            await serving
            for task in background:
                task.cancel()

    async def _adapter(self, adapter: DeviceAdapter, ready: asyncio.Event) -> None:
        def on_ready() -> None:
            self.health.ready(adapter.protocol)
            ready.set()

        await adapter.run(self.ingest, ready=on_ready)

    async def _dispatch(self, ready: Mapping[str, asyncio.Event]) -> None:
        try:
            async with asyncio.timeout(_ADAPTERS_WAIT_S):
                for event in ready.values():
                    await event.wait()
        except TimeoutError:
            late = [protocol for protocol, event in ready.items() if not event.is_set()]
            _log.warning("adapters_late", protocols=late)
        await self.conductor.run()

    async def _announce(self, server: Server, started: Callable[[], None]) -> None:
        await server.listening.wait()
        self.health.ready("api")
        started()

    async def _root_periodically(self) -> None:
        while True:
            await asyncio.sleep(self.root_every_s)
            await asyncio.to_thread(self._write_root)

    async def _keep_quarantined(self) -> None:
        while True:
            await self.readings.quarantine(await self.quarantine.get())

    def _write_root(self) -> None:
        with self.engine.connect() as connection:
            heads = read_heads(connection)
        self.roots.write(self.clock.now(), heads)

    def _open_setpoints(self) -> list[SetpointRow]:
        with self.engine.connect() as connection:
            return setpoints_in(connection, _RESTORED)

    def _server(self) -> Server:
        certificate, key = self.tls or (None, None)
        return Server(
            uvicorn.Config(
                self.api,
                lifespan="off",
                log_config=None,
                access_log=False,
                ws="websockets-sansio",
                ws_max_size=4096,
                # Deflating would be done anew for every reader of the same message.
                ws_per_message_deflate=False,
                ssl_certfile=certificate,
                ssl_keyfile=key,
                timeout_graceful_shutdown=5,
            )
        )
