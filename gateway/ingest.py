"""Readings in: committed first, then shown, counted and passed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from gateway.live import Live
from gateway.observability.metrics import Metrics
from gateway.store.readings import Quarantined, Readings
from marketplace_core.ports import Clock
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
    ) -> None:
        """`spawn` keeps a quarantined message; `stored` hears of readings that were new."""
        self._readings = readings
        self._live = live
        self._clock = clock
        self._metrics = metrics
        self._spawn = spawn
        self._stored = stored

    async def store(self, readings: Sequence[Reading]) -> None:
        """Return once the readings are durable; duplicates vanish. Raises StoreError."""
        fresh = await self._readings.store(readings)
        self._metrics.readings.inc(len(fresh))
        self._metrics.duplicates.inc(len(readings) - len(fresh))
        self._live.update(fresh)
        self._stored(fresh)

    def quarantine(self, *, source: str, reason: str, evidence: bytes) -> None:
        """Put a malformed message aside, counted and shown."""
        self._metrics.quarantined.inc()
        _log.warning("message_quarantined", source=source, reason=reason, size=len(evidence))
        message = Quarantined(at=self._clock.now(), source=source, reason=reason, evidence=evidence)
        self._spawn(message)
