"""What the VTN answers: registrations, events, opts and reports, over durable state."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from adapters.openadr import mapping
from adapters.openadr.book import EventBook
from adapters.openadr.config import OpenAdrVen, OpenAdrVtn
from adapters.openadr.state import EventRecord, State, StateFile, VenRecord, load
from adapters.openadr.wire import Message, answers
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.errors import StoreError
from marketplace_core.ports import Clock, ReadingSink, TimeMap

_SHORTEST_REPORT: Final = timedelta(seconds=1)
_EVIDENCE_BYTES: Final = 4096
_log = structlog.get_logger(__name__)


class SiteService:
    """Implements the link's VenService; the adapter issues and cancels through it."""

    def __init__(
        self,
        config: OpenAdrVtn,
        vens: Sequence[OpenAdrVen],
        *,
        clock: Clock,
        time_map: TimeMap,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when a VEN answered or was registered."""
        self._config = config
        self._vens = {ven.device_id: ven for ven in vens}
        self._clock = clock
        self._map = time_map
        self._changed = changed
        self._known = load(config.state)
        ids = {ven.ven_id for ven in vens}
        known = self._known.vens if self._known else {}
        self._registered = {key: record for key, record in known.items() if key in ids}
        self._file = StateFile(config.state, self._state)
        self._publishing = asyncio.Lock()
        self._heard: dict[str, float] = {}
        self._sink: ReadingSink | None = None
        self.book = EventBook()
        self.counts: Counter[str] = Counter()
        """`stale_answers`, `readings`, `defects`."""

    def restore(self, setpoints: Sequence[Setpoint]) -> None:
        """Reload events after a restart, before any VEN is answered."""
        self.book.restore(
            self._known.events if self._known else (),
            setpoints,
            ven_of={device_id: ven.ven_id for device_id, ven in self._vens.items()},
            now=self._clock.now(),
            created=datetime.now(UTC),
        )

    def attach(self, sink: ReadingSink) -> None:
        """Where readings go from now on."""
        self._sink = sink

    async def save(self) -> None:
        """Return once the state is durable."""
        await self._file.save()

    def present(self, ven: OpenAdrVen) -> bool:
        """Whether a VEN was heard of recently enough."""
        at = self._heard.get(ven.ven_id)
        silence = self._config.silence.total_seconds()
        return at is not None and self._clock.monotonic() - at <= silence

    async def offer(self, setpoint: Setpoint, ven: OpenAdrVen) -> EventRecord:
        """Put a setpoint into the VEN's events. Raises ValueError (superseded), StoreError."""
        async with self._publishing:
            before = self.book.records()
            event = self.book.offer(setpoint, ven.ven_id, created=datetime.now(UTC))
            if event not in before:
                await self._save_or_withdraw(event)
            return event

    async def cancel(self, event: EventRecord) -> EventRecord:
        """Cancel an event."""
        async with self._publishing:
            cancelled = self.book.cancel(event)
            await self.save()
            return cancelled

    async def _save_or_withdraw(self, event: EventRecord) -> None:
        try:
            await self.save()
        except StoreError:
            self.book.withdraw(event)
            raise

    def registration(self, ven: OpenAdrVen) -> str | None:
        """Registration id of a VEN, or None."""
        record = self._registered.get(ven.ven_id)
        return record.registration_id if record else None

    async def register(self, ven: OpenAdrVen) -> str:
        """Register a VEN; one that is registered keeps its id."""
        known = self._registered.get(ven.ven_id)
        if known is None:
            known = VenRecord(registration_id=f"reg-{secrets.token_hex(8)}")
            self._registered[ven.ven_id] = known
            await self.save()
            _log.info("openadr_ven_registered", ven=ven.ven_name, device=ven.device_id)
            self._changed()
        return known.registration_id

    async def deregister(self, ven: OpenAdrVen) -> None:
        """Forget a VEN's registration."""
        if self._registered.pop(ven.ven_id, None) is not None:
            await self.save()
            _log.warning("openadr_ven_left", ven=ven.ven_name, device=ven.device_id)

    def heard(self, ven: OpenAdrVen) -> None:
        """A VEN spoke."""
        self._heard[ven.ven_id] = self._clock.monotonic()

    async def events(self, ven: OpenAdrVen, *, all_of_them: bool) -> list[dict[str, Any]] | None:
        """The full set; None when all of it was answered and not `all_of_them` is wanted."""
        async with self._publishing:  # nothing is told before it is durable
            self.book.prune(self._clock.now())
            events = self.book.of(ven.ven_id, self._clock.now())
            if not all_of_them and all(event.opt_in is not None for event in events):
                return None
            self.book.delivered(events)
            return [self._document(event) for event in events]

    async def answered(self, ven: OpenAdrVen, message: Message) -> None:
        """Note opts; an answer to a modification that no longer stands is counted only."""
        fresh = [self.book.answer(ven.ven_id, answer) for answer in answers(message)]
        self.counts["stale_answers"] += fresh.count(False)
        if any(fresh):
            await self.save()
            self._changed()

    async def offered(self, ven: OpenAdrVen, message: Message) -> list[dict[str, Any]]:
        """Ask for the VEN's power: the point named like the device, or else the first."""
        points = mapping.report_points(message)
        wanted = next((p for p in points if p.resource_id == ven.device_id), None)
        wanted = wanted or next(iter(points), None)
        record = self._registered.get(ven.ven_id)
        if wanted is None or record is None:
            return []
        chosen = {wanted.r_id: wanted}
        if record.points != chosen:
            registration = record.registration_id
            self._registered[ven.ven_id] = VenRecord(registration_id=registration, points=chosen)
            await self.save()
        return [self._request(ven, wanted)]

    async def reported(self, ven: OpenAdrVen, message: Message) -> None:
        """Store what a report says. Raises StoreError: the VEN then keeps it."""
        record = self._registered[ven.ven_id]
        good, bad = mapping.readings(
            message,
            record.points,
            series=ven.device_id,
            telemetry_s=ven.profile.telemetry_s,
            time_map=self._map,
            now=datetime.now(UTC),
        )
        for defect in bad:
            self.quarantine(f"openadr:{ven.ven_name}", defect.reason, defect.evidence)
        if good and self._sink is not None:
            await self._sink.store(good)
        self.counts["readings"] += len(good)
        self.counts["defects"] += len(bad)

    def quarantine(self, source: str, reason: str, evidence: bytes) -> None:
        """Put a body aside that could not be read."""
        if self._sink is not None:
            part = evidence[:_EVIDENCE_BYTES]
            self._sink.quarantine(source=source, reason=reason, evidence=part)

    def _document(self, event: EventRecord) -> dict[str, Any]:
        return mapping.event_document(
            event.setpoint,
            ven_id=event.ven_id,
            modification=event.modification,
            created=event.created,
            cancelled=event.cancelled,
            market_context=self._config.market_context,
            time_map=self._map,
            now=datetime.now(UTC),
        )

    def _request(self, ven: OpenAdrVen, point: mapping.ReportPoint) -> dict[str, Any]:
        wall = timedelta(seconds=ven.profile.telemetry_s / self._map.speed)
        shortest = max(_SHORTEST_REPORT, timedelta(seconds=point.min_period_s))
        every = max(wall, shortest)
        return {
            "report_request_id": f"req-{ven.ven_id}",
            "report_specifier": {
                "report_specifier_id": point.specifier_id,
                "granularity": every,
                "report_back_duration": every,
                "specifier_payloads": [{"r_id": point.r_id, "reading_type": point.reading_type}],
            },
        }

    def _state(self) -> State:
        return State(vens=dict(self._registered), events=self.book.records())
