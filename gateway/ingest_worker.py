"""`flexway serve --role ingest`: takes in the telemetry of whole shards, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from gateway.app import Server
from gateway.observability.health import Health
from gateway.observability.loop_lag import measure_loop_lag
from gateway.observability.metrics import Metrics
from gateway.shard_watch import ShardWatch
from gateway.store.claims import Claims
from gateway.store.passed_on import Finding, pass_on
from gateway.store.readings import Quarantined, Readings
from gateway.store.readings_worker import WorkerReadings
from marketplace_core.errors import StoreError
from marketplace_core.ports import Clock, DeviceAdapter
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading

_MOST_AT_ONCE = 100
_log = structlog.get_logger(__name__)


class WorkerSink:
    """The ReadingSink of a worker: readings are committed and passed on, findings passed on."""

    def __init__(self, readings: Readings, clock: Clock, metrics: Metrics, *, queue: int) -> None:
        """`queue`: findings and malformed messages that wait; of more, the evidence is dropped."""
        self._readings = readings
        self._clock = clock
        self._metrics = metrics
        self._aside: asyncio.Queue[Quarantined] = asyncio.Queue(queue)
        self._findings: asyncio.Queue[Finding] = asyncio.Queue(queue)

    async def store(self, readings: Sequence[Reading]) -> None:
        """Return once the readings are durable; duplicates vanish. Raises StoreError."""
        fresh = await self._readings.store(readings)
        self._metrics.readings.inc(len(fresh))
        self._metrics.duplicates.inc(len(readings) - len(fresh))

    def quarantine(self, *, source: str, reason: str, evidence: bytes, device_id: str = "") -> None:
        """Put a malformed message aside, counted and shown."""
        self._metrics.quarantined.inc()
        _log.warning("message_quarantined", source=source, reason=reason, size=len(evidence))
        now = self._clock.now()
        if self._aside.full():
            self._metrics.evidence_dropped.inc()
        else:
            self._aside.put_nowait(
                Quarantined(at=now, source=source, reason=reason, evidence=evidence)
            )
        if device_id:
            self.noticed(device_id=device_id, kind=FlagKind.MALFORMED, since=now, evidence=reason)

    def noticed(self, *, device_id: str, kind: FlagKind, since: datetime, evidence: str) -> None:
        """Pass on what the adapter noticed about a device."""
        if self._findings.full():
            _log.error("finding_dropped", device=device_id, kind=kind.value)
            return
        self._findings.put_nowait(
            Finding(device_id=device_id, kind=kind, since=since, evidence=evidence)
        )

    async def keep_quarantined(self) -> None:
        """Keep malformed messages until cancelled."""
        while True:
            message = await self._aside.get()
            try:
                await self._readings.quarantine(message)
            except StoreError as error:  # counted and logged it was; its evidence is lost
                _log.warning("quarantine_not_kept", source=message.source, error=str(error))

    async def pass_findings_on(self, engine: Engine) -> None:
        """Write findings for the process that dispatches, until cancelled."""
        while True:
            found = [await self._findings.get()]
            while not self._findings.empty() and len(found) < _MOST_AT_ONCE:
                found.append(self._findings.get_nowait())
            try:
                await asyncio.to_thread(pass_on, engine, found)
            except DBAPIError as error:  # they were logged where they were found
                _log.warning("findings_not_passed_on", count=len(found), error=str(error.orig))


@dataclass(frozen=True)
class IngestWorker:
    """Everything that a worker runs."""

    readings: WorkerReadings
    engine: Engine
    """Of the readings, for claims and findings."""
    claims: Claims
    adapter: DeviceAdapter
    sink: WorkerSink
    watch: ShardWatch
    metrics: Metrics
    health: Health
    listener: socket.socket | None
    """Where /healthz, /readyz and /metrics are served; None = nowhere."""

    @property
    def url(self) -> str:
        """Where it can be watched; empty when it cannot."""
        if self.listener is None:
            return ""
        host, port = self.listener.getsockname()[:2]
        return f"http://{host}:{port}"

    async def run(
        self, stop: asyncio.Event, started: Callable[[], None], taking_in: Callable[[], None]
    ) -> None:
        """Run until `stop` is set; `taking_in` is called once the broker's session is up.

        Raises: ConfigError when another worker has one of the shards, FencedError when one
        takes them over, StoreError when the database cannot be used.
        """
        try:
            await asyncio.to_thread(self.readings.prepare)
            await asyncio.to_thread(self.claims.claim)
            self.readings.start()
            try:
                await self._work(stop, started, taking_in)
            finally:
                self.readings.stop()
            await asyncio.to_thread(self.claims.give_up)
        finally:
            self.engine.dispose()

    async def _work(
        self, stop: asyncio.Event, started: Callable[[], None], taking_in: Callable[[], None]
    ) -> None:
        def ready() -> None:
            self.health.ready(self.adapter.protocol)
            taking_in()

        server = self._server()
        async with asyncio.TaskGroup() as tasks:
            if self.listener is not None:
                tasks.create_task(server.serve(sockets=[self.listener]))
                await server.listening.wait()
            background = [
                tasks.create_task(part)
                for part in (
                    self.adapter.run(self.sink, ready=ready),
                    self.watch.run(),
                    self.sink.keep_quarantined(),
                    self.sink.pass_findings_on(self.engine),
                    measure_loop_lag(self.metrics.loop_lag.observe),
                )
            ]
            started()
            await stop.wait()
            server.should_exit = True
            for task in background:
                task.cancel()

    def _server(self) -> Server:
        return Server(
            uvicorn.Config(
                _watched(self), lifespan="off", log_config=None, access_log=False,
                timeout_graceful_shutdown=5,
            )
        )  # fmt: skip


def _watched(worker: IngestWorker) -> FastAPI:
    """What a worker shows of itself; it serves no API."""
    app = FastAPI(title="Flexway ingest worker", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz(response: Response) -> dict[str, object]:
        health = worker.health
        if health.waiting_for:
            response.status_code = 503
        degraded = [
            *(f"{protocol} is not connected: {health.fault(protocol)}" for protocol in health.down),
            *health.degraded(),
        ]
        return {
            "status": "degraded" if degraded else "ready", "degraded": degraded,
            "shards": str(worker.claims.shards),
        }  # fmt: skip

    @app.get("/metrics")
    async def metrics(_request: Request) -> Response:
        worker.metrics.ready.set(not worker.health.waiting_for)
        worker.metrics.adapter_up.labels(worker.adapter.protocol).set(not worker.health.down)
        worker.metrics.writer_queue.labels("readings").set(worker.readings.waiting)
        return Response(worker.metrics.exposition(), media_type="text/plain; version=0.0.4")

    return app
