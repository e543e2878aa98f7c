"""Messages in: batched, committed, acknowledged; poison put aside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from adapters.mqtt import wire
from marketplace_core.errors import StoreError
from marketplace_core.ports import ReadingSink, TimeMap
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

_GATHER_S: Final = 0.003
"""Wall seconds that telemetry is gathered for one commit."""
_MOST: Final = 2_000
"""Messages that share one commit at most."""
_RETRY_S: Final = 1.0
"""Wall seconds between two tries to commit."""
_log = structlog.get_logger(__name__)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class TelemetryIntake:
    """Turns telemetry messages into committed readings, many messages to a commit."""

    def __init__(
        self, sink: ReadingSink, time_map: TimeMap, stored: Callable[[str, int, int], None]
    ) -> None:
        """`stored(device, boot, through)` is called after the commit."""
        self._sink = sink
        self._time = time_map
        self._stored = stored
        self._waiting: list[tuple[str, wire.Telemetry, asyncio.Future[None]]] = []
        self._full = asyncio.Event()

    async def take(self, device_id: str, telemetry: wire.Telemetry) -> None:
        """Return once the readings are committed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((device_id, telemetry, future))
        self._full.set()
        await future

    async def run(self) -> None:
        """Commit batches until cancelled; what waits then is not acknowledged."""
        while True:
            await self._full.wait()
            await asyncio.sleep(_GATHER_S)
            batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            if not self._waiting:
                self._full.clear()
            await self._commit(batch)

    async def _commit(self, batch: list[tuple[str, wire.Telemetry, asyncio.Future[None]]]) -> None:
        readings = [
            self._reading(device_id, telemetry.boot, reading)
            for device_id, telemetry, _ in batch
            for reading in telemetry.readings
        ]
        await self._store(readings)
        for device_id, telemetry, future in batch:
            if not future.done():
                future.set_result(None)
            if telemetry.readings:
                last = max(reading.sequence for reading in telemetry.readings)
                self._stored(device_id, telemetry.boot, last)

    async def _store(self, readings: list[Reading]) -> None:
        """Store, however long it takes: unacknowledged messages stay with the broker meanwhile."""
        while True:
            try:
                await self._sink.store(readings)
            except StoreError as error:
                _log.error("readings_not_stored", error=str(error), readings=len(readings))
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _reading(self, device_id: str, boot: int, reading: wire.WireReading) -> Reading:
        start = _EPOCH + timedelta(microseconds=reading.start_us)
        return Reading(
            series=device_id,
            start=self._time.to_market(start),
            seconds=reading.seconds * self._time.speed,
            power_kw=Kw(reading.power_w / 1000.0),
            boot=boot,
            sequence=reading.sequence,
            soc_kwh=None if reading.soc_wh is None else reading.soc_wh / 1000.0,
            available=reading.available,
            sample_kw=None if reading.sample_w is None else Kw(reading.sample_w / 1000.0),
        )
