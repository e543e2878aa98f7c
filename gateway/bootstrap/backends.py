"""Which database, bus and live state: what the configuration chose (part of the bootstrap)."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from config.settings import BusSettings, StoreSettings
from gateway.bus.local import LocalBus
from gateway.live import Live, LiveState
from gateway.observability.metrics import Metrics
from gateway.store.engine import open_engine
from gateway.store.readings import Readings
from gateway.store.readings_postgres import PostgresReadings
from gateway.store.readings_sqlite import SqliteReadings
from gateway.surroundings import Surroundings
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.errors import ConfigError
from marketplace_core.ports import Bus

if TYPE_CHECKING:
    from redis.asyncio import Redis

_KEY_BYTES: Final = 32


def open_database(store: StoreSettings) -> Engine:
    """The market database."""
    return open_engine(
        store.database, password=database_password(store), patience_s=store.patience_s
    )


def database_password(store: StoreSettings) -> str | None:
    """What the password file holds; None leaves it to libpq's environment."""
    return _secret("store.database_password_file", store.database_password_file)


def open_readings(store: StoreSettings, *, inline: bool = False) -> Readings:
    """The readings store; inline it commits in the caller."""
    if "://" not in store.readings:
        return SqliteReadings(Path(store.readings), inline=inline)
    password = readings_password(store)
    # Whoever waits for a commit is told at once that it failed; only reads are patient.
    engine = open_engine(store.readings, password=password, patience_s=0.0)
    return PostgresReadings(engine, patience_s=store.patience_s, inline=inline)


def readings_password(store: StoreSettings) -> str | None:
    """What the password file of the readings holds; None leaves it to libpq's environment."""
    return _secret(
        "store.readings_password_file", store.readings_password_file or store.database_password_file
    )


def open_bus(bus: BusSettings, metrics: Metrics, around: Surroundings) -> Bus:
    """The bus between the stages."""
    if bus.kind == "local":
        return LocalBus(limit=bus.queue)
    # Imported when it is chosen: an edge box starts without Redis' client.
    from gateway.bus.redis_streams import RedisBus  # noqa: PLC0415
    from gateway.bus.redis_subscription import StreamLimits  # noqa: PLC0415

    return RedisBus(
        _redis(bus, around),
        prefix=bus.prefix,
        consumer=bus.consumer or socket.gethostname(),
        # Entries of other runs are no facts: after a restore they might never have happened.
        key=secrets.token_bytes(_KEY_BYTES),
        show=lambda away: metrics.show_server("bus", away=away),
        streams=bus.streams,
        limits=StreamLimits(
            queue=bus.queue, entries=bus.stream_entries, entry_records=bus.entry_records,
            entry_bytes=bus.entry_bytes, timeout_s=bus.timeout_s,
            check_s=max(bus.check_s, around.idle_s), claim_after_s=bus.claim_after_s,
        ),
    )  # fmt: skip


def open_live(
    bus: BusSettings,
    profiles: Mapping[str, DeviceProfile],
    metrics: Metrics,
    around: Surroundings,
) -> Live:
    """The live state of devices."""
    if bus.live_state == "memory":
        return LiveState(profiles, around.clock)
    from gateway.live_redis import RedisLiveState  # noqa: PLC0415

    return RedisLiveState(
        profiles, around.clock, _redis(bus, around), prefix=bus.prefix,
        origin=secrets.token_hex(8), timeout_s=bus.timeout_s,
        show=lambda away: metrics.show_server("live_state", away=away),
    )  # fmt: skip


def _redis(bus: BusSettings, around: Surroundings) -> Redis:
    from gateway.bus.client import open_redis  # noqa: PLC0415

    password = _secret("bus.password_file", bus.password_file) or os.environ.get("REDISCLI_AUTH")
    return (around.redis or open_redis)(bus.url, password=password, timeout_s=bus.timeout_s)


def _secret(key: str, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from error
