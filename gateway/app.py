"""Start and stop order of the service; one TaskGroup holds everything that runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from gateway.flags import Flags
from gateway.ingest import Ingest
from gateway.live import Live
from gateway.observability.health import Health
from gateway.observability.loop_lag import measure_loop_lag
from gateway.observability.metrics import Metrics
from gateway.reads import Reads
from gateway.stages.dispatch.conductor import Conductor
from gateway.stages.dispatch.watchdog import let_go
from gateway.stages.observe import Observe
from gateway.store.engine import migrate, run_read
from gateway.store.journal import read_heads
from gateway.store.readings import Quarantined, Readings
from gateway.store.roots import RootLog
from gateway.store.setpoints import (
    OPEN,
    SetpointRow,
    SetpointState,
    in_force,
    setpoints_in,
)
from gateway.store.writer import Writer
from gateway.street import Carrier
from gateway.tracking import Tracker
from marketplace_core.dispatch.leases import ended_by
from marketplace_core.errors import StoreError
from marketplace_core.ports import Bus, Clock, DeviceAdapter

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
    readings: Readings
    bus: Bus
    live: Live
    ingest: Ingest
    quarantine: asyncio.Queue[Quarantined]
    adapters: Mapping[str, DeviceAdapter]
    carriers: Sequence[Carrier]
    conductor: Conductor
    observe: Observe
    flags: Flags
    tracker: Tracker
    roots: RootLog
    root_every_s: float
    clock: Clock
    metrics: Metrics
    health: Health
    api: FastAPI
    listener: socket.socket | None
    """None = the API is called in the process, not over a port."""
    tls: tuple[str, str] | None
    reads: Reads
    prepare: Callable[[], None]
    """Enters what the configuration names into the migrated database."""
    restore: Callable[[Sequence[SetpointRow]], None]
    """Hands open setpoints to adapters that have to know them before they answer devices."""
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    """What else runs from start to stop."""
    claim: Callable[[], None] = lambda: None
    """Says to ingest workers that the telemetry of every shard is taken in here, or refuses."""

    @property
    def url(self) -> str:
        """Where the API listens; empty when it does not."""
        if self.listener is None:
            return ""
        host, port = self.listener.getsockname()[:2]
        return f"{'https' if self.tls else 'http'}://{host}:{port}"

    async def run(
        self,
        stop: asyncio.Event,
        started: Callable[[], None],
        dispatching: Callable[[], None] | None = None,
    ) -> None:
        """Run until `stop` is set; `started` is called once the API takes requests.

        `dispatching` is called once orders are carried out as well: every adapter is ready,
        or was waited for long enough. Raises StoreError when the database cannot be used.
        """
        await asyncio.to_thread(self._migrate)
        await asyncio.to_thread(self.prepare)
        await asyncio.to_thread(self.claim)
        self.writer.start()
        self.readings.start()
        await self.live.load()
        self.live.update(await asyncio.to_thread(self.readings.latest))
        rows = await asyncio.to_thread(self._open_setpoints)
        self.restore(rows)
        self.conductor.restore(rows)
        try:
            await self._serve(stop, started, dispatching)
        finally:
            self.readings.stop()
            self.writer.stop()
            await self.bus.close()
            await self.live.close()
            self._write_last_root()
            self.reads.close()
            self.engine.dispose()

    async def _serve(
        self,
        stop: asyncio.Event,
        started: Callable[[], None],
        dispatching: Callable[[], None] | None,
    ) -> None:
        ready = {protocol: asyncio.Event() for protocol in self.adapters}
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(self._api(started, stop))
            work = [
                self.bus.run(),
                self.live.run(),
                self._root_periodically(),
                self._keep_quarantined(),
                self.observe.run(),
                self.flags.run(),
                self.tracker.run(),
            ]
            work += [carrier.run() for carrier in self.carriers]
            work += [
                self._adapter(adapter, ready[protocol])
                for protocol, adapter in self.adapters.items()
            ]
            work.append(self._announce_dispatch(dispatching))
            work += [start() for start in self.background]
            if self.listener is not None:  # virtual time is never late
                work.append(measure_loop_lag(self.metrics.loop_lag.observe))
            conducting = tasks.create_task(self._dispatch(ready))
            background = [tasks.create_task(part) for part in work]
            await stop.wait()
            _log.info("stopping")
            await serving
            conducting.cancel()
            await asyncio.wait([conducting])  # from here on nothing is issued or refreshed
            await self._let_go()
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
            self.health.start_without(late)
        await self.conductor.run()

    async def _api(self, started: Callable[[], None], stop: asyncio.Event) -> None:
        """Serve the API until `stop` is set."""
        if self.listener is None:
            self.health.ready("api")
            started()
            await stop.wait()
            return
        server = self._server()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[self.listener]))
            await server.listening.wait()
            self.health.ready("api")
            started()
            await stop.wait()
            server.should_exit = True

    async def _announce_dispatch(self, dispatching: Callable[[], None] | None) -> None:
        await self.health.all_ready()
        if dispatching is not None:
            dispatching()

    def _migrate(self) -> None:
        try:
            migrate(self.engine)
        except DBAPIError as error:
            where = self.engine.url.render_as_string(hide_password=True)
            cause = " ".join(str(error.orig).split())
            raise StoreError(f"the database {where} cannot be used: {cause}") from error

    async def _root_periodically(self) -> None:
        while True:
            await asyncio.sleep(self.root_every_s)
            try:
                await asyncio.to_thread(self._write_root)
            except DBAPIError as error:  # for longer than a read waits: the next one signs it
                self.metrics.root_failures.inc()
                _log.error("root_not_written", error=str(error.orig))

    async def _keep_quarantined(self) -> None:
        while True:
            message = await self.quarantine.get()
            try:
                await self.readings.quarantine(message)
            except StoreError as error:  # counted and logged it was; its evidence is lost
                _log.warning("quarantine_not_kept", source=message.source, error=str(error))

    def _write_last_root(self) -> None:
        try:
            self._write_root()
        except DBAPIError as error:  # the server is away: the next start signs what is there
            _log.warning("no_last_root", error=str(error))

    def _write_root(self) -> None:
        heads = run_read(self.engine, read_heads)
        try:
            self.roots.write(self.clock.now(), heads)
        except OSError as error:
            # A full or missing disk of the roots stops no dispatch: it is shown and retried.
            self.metrics.root_failures.inc()
            _log.error("root_not_written", error=str(error))

    def _open_setpoints(self) -> list[SetpointRow]:
        return run_read(self.engine, lambda at: setpoints_in(at, _RESTORED))

    async def _let_go(self) -> None:
        """Return the devices that nothing but this process would."""
        now = self.clock.now()
        profiles = {p.device_id: p for each in self.adapters.values() for p in each.profiles()}
        if all(ended_by(profile) != "gateway" for profile in profiles.values()):
            return
        try:
            rows = await asyncio.to_thread(run_read, self.engine, lambda at: in_force(at, now))
        except DBAPIError as error:
            _log.error("devices_not_let_go", error=str(error.orig))
            return
        await let_go(rows, profiles, self.adapters)

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
