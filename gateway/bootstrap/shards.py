"""Ingest workers and the process that dispatches beside them (part of the bootstrap)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine

from adapters.mqtt.adapter import MqttAdapter
from config.settings import Settings, StoreSettings
from gateway.bindings import mqtt_devices
from gateway.bootstrap.adapters import mqtt_broker
from gateway.bootstrap.backends import readings_password
from gateway.bootstrap.basis import Basis, time_map_of
from gateway.flags import Flags
from gateway.following import Following
from gateway.ingest_worker import IngestWorker, WorkerSink
from gateway.live import Live
from gateway.observability.gaps import GapCollector
from gateway.observability.health import Health
from gateway.observability.metrics import Metrics
from gateway.shard_watch import ShardWatch
from gateway.store.claims import Claims, living
from gateway.store.engine import open_engine
from gateway.store.readings_postgres import PostgresReadings
from gateway.store.readings_worker import WorkerReadings
from gateway.surroundings import of_this_machine
from marketplace_core.errors import ConfigError
from marketplace_core.ports import DeviceAdapter
from marketplace_core.shards import EVERY_SHARD, ShardRange
from marketplace_core.verification.reading import Reading

_GATEWAY: Final = "gateway@"
_LOOPBACK: Final = "127.0.0.1"
_QUEUE: Final = 10_000
"""Findings and malformed messages of a worker that wait to be kept."""


@dataclass(frozen=True)
class Shards:
    """What a gateway does about the shards of its MQTT devices."""

    engine: Engine | None = None
    """Of the readings; None where there is nothing to do."""
    claim: Callable[[], None] = lambda: None
    parts: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()

    async def run(self) -> None:
        """Do it until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for part in self.parts:
                    tasks.create_task(part())
        finally:
            if self.engine is not None:
                self.engine.dispose()


def make_shards(
    basis: Basis,
    adapters: Mapping[str, DeviceAdapter],
    health: Health,
    *,
    live: Live,
    flags: Flags,
    stored: Sequence[Callable[[Sequence[Reading]], None]],
    workers: bool,
) -> Shards:
    """With workers: hear of what they store. Without: claim every shard, so that none is taken.

    Nothing of both where the readings are in a file, or no MQTT device is bound.
    Raises: ConfigError when workers are asked for and the readings are in a file.
    """
    settings, adapter = basis.settings, adapters.get("mqtt")
    if workers:
        _check_readings(settings.store)
    if not isinstance(adapter, MqttAdapter) or "://" not in settings.store.readings:
        return Shards()
    engine = _engine(settings.store)
    if workers:
        listeners = [adapter.reported, *stored]
        watch = ShardWatch(lambda: living(engine), basis.metrics)
        if not isinstance(basis.readings, PostgresReadings):
            raise TypeError("readings behind an address are in PostgreSQL")
        following = Following(
            engine, live=live, flags=flags, stored=listeners, missing=basis.readings.heed
        )
        health.watch(watch.degraded)
        prepare = PostgresReadings(engine).prepare
        return Shards(engine, prepare, [watch.run, following.run])
    # A gateway replaces another at once, as it does in the journal.
    claims = Claims(engine, f"{_GATEWAY}{socket.gethostname()}", EVERY_SHARD, replaces=_GATEWAY)
    watch = ShardWatch(claims.renew, basis.metrics)

    def claim() -> None:
        PostgresReadings(engine).prepare()
        claims.claim()

    return Shards(engine, claim, [watch.run])


def build_worker(settings: Settings, shards: ShardRange, port: int | None) -> IngestWorker:
    """One ingest worker; `port` on loopback is where it can be watched.

    Raises: ConfigError when the settings leave nothing for it to do, or the port is taken.
    """
    _check_readings(settings.store)
    devices = [each for each in mqtt_devices(settings) if shards.holds(each.device_id)]
    if not devices:
        raise ConfigError(f"mqtt.devices: none of them is in the shards {shards}")
    around, metrics = of_this_machine(time_map_of(settings)), Metrics()
    engine = _engine(settings.store)
    readings = WorkerReadings(_engine(settings.store), patience_s=settings.store.patience_s)
    # Of another host it has another name, and takes over once this one is silent.
    readings.claims = claims = Claims(engine, f"ingest@{socket.gethostname()}/{shards}", shards)
    adapter = MqttAdapter(
        mqtt_broker(settings), devices, clock=around.clock, time_map=around.time_map,
        ack_timeout_s=settings.mqtt.ack_timeout_s, noted=metrics.mqtt_reason,
        part="telemetry", shards=shards,
    )  # fmt: skip
    watch = ShardWatch(claims.renew, metrics)
    health = Health(
        {adapter.protocol}, {adapter.protocol: lambda: adapter.link_up},
        {adapter.protocol: lambda: adapter.link_fault},
    )  # fmt: skip
    health.watch(watch.degraded)
    metrics.registry.register(GapCollector(readings.gaps, {adapter.protocol: adapter}))
    return IngestWorker(
        readings=readings, engine=engine, claims=claims, adapter=adapter, watch=watch,
        sink=WorkerSink(readings, around.clock, metrics, queue=_QUEUE), metrics=metrics,
        health=health, listener=None if port is None else _listener(port),
    )  # fmt: skip


def _engine(store: StoreSettings) -> Engine:
    return open_engine(store.readings, password=readings_password(store), patience_s=0.0)


def _check_readings(store: StoreSettings) -> None:
    if "://" not in store.readings:
        raise ConfigError(
            f"store.readings: {store.readings} is a SQLite file, which one process writes: ingest"
            " workers share the readings in PostgreSQL (postgresql://USER@HOST:PORT/NAME)"
        )


def _listener(port: int) -> socket.socket:
    try:
        listener = socket.create_server((_LOOPBACK, port))
    except OSError as error:
        raise ConfigError(
            f"--port: cannot listen on {_LOOPBACK}:{port}: {error.strerror}"
        ) from error
    listener.setblocking(False)
    return listener
