"""Readings in: committed first, then shown, counted and passed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from gateway.flags import Flags
from gateway.live import Live
from gateway.observability.metrics import Metrics
from gateway.store.readings import Quarantined, Readings
from marketplace_core.ports import Clock
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.gaps import fill
from marketplace_core.verification.reading import Reading

_log = structlog.get_logger(__name__)


class Ingest:
    """The ReadingSink that adapters and the bulk import write to."""

    def __init__(
        self,
        readings: Readings,
        *,
        live: Live,
        clock: Clock,
        metrics: Metrics,
        spawn: Callable[[Quarantined], None],
        stored: Callable[[Sequence[Reading]], None],
        flags: Flags,
    ) -> None:
        """`spawn` keeps a quarantined message; `stored` hears of readings that were new."""
        self._readings = readings
        self._live = live
        self._clock = clock
        self._metrics = metrics
        self._spawn = spawn
        self._stored = stored
        self._flags = flags

    async def store(self, readings: Sequence[Reading]) -> None:
        """Return once the readings are durable; duplicates vanish. Raises StoreError."""
        fresh = await self._readings.store(self._filled(readings))
        self._metrics.readings.inc(len(fresh))
        self._metrics.duplicates.inc(max(0, len(readings) - len(fresh)))
        self._live.update(fresh)
        self._stored(fresh)

    def _filled(self, readings: Sequence[Reading]) -> Sequence[Reading]:
        """The readings, and before each what its meter counted since it was last heard."""
        filled: list[Reading] = []
        for reading in readings:
            if reading.register_kwh is not None:
                before = self._live.newest(reading.series)
                gap = None if before is None else fill(before, reading)
                if gap is not None:
                    filled.append(gap)
            filled.append(reading)
        return filled

    def quarantine(self, *, source: str, reason: str, evidence: bytes, device_id: str = "") -> None:
        """Put a malformed message aside, counted and shown."""
        self._metrics.quarantined.inc()
        _log.warning("message_quarantined", source=source, reason=reason, size=len(evidence))
        now = self._clock.now()
        self._spawn(Quarantined(at=now, source=source, reason=reason, evidence=evidence))
        if device_id:
            self.noticed(device_id=device_id, kind=FlagKind.MALFORMED, since=now, evidence=reason)

    def noticed(self, *, device_id: str, kind: FlagKind, since: datetime, evidence: str) -> None:
        """Pass on what an adapter noticed about a device."""
        self._flags.found(device_id=device_id, kind=kind, since=since, evidence=evidence)
