"""A commercial site as an OpenADR 2.0b VEN: it polls, opts in or out, and reports its power.

It speaks through openleadr's client, but keeps its own loops: the client's scheduler knows
whole seconds only, its report queue forgets what it could not send, and one empty reply
ends the worker of that queue. Here a report stays in the outbox until it is accepted.

Loads on the wire count consumption positive; the site's own numbers are injection-positive.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import structlog
from openleadr import OpenADRClient, objects
from openleadr.messaging import create_message
from openleadr.utils import generate_id

_BATCH: Final = 60
"""Readings in one report."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class VenTls:
    """Client certificate of the VEN and the CA that it trusts."""

    certificate: Path
    key: Path
    ca_certificate: Path


@dataclass(frozen=True)
class SiteEvent:
    """One event as the VTN told it."""

    id: str
    modification: int
    status: str
    start: datetime
    """Wall time."""
    end: datetime
    load_kw: float
    """Load to keep, consumption positive."""
    opted_in: bool | None = None
    """The site's answer; None = not answered."""

    def in_force(self, now: datetime) -> bool:
        """Whether the site follows it at a wall instant."""
        return self.opted_in is True and self.status != "cancelled" and self.start <= now < self.end


@dataclass(frozen=True)
class _Sample:
    start: datetime
    mean_kw: float


Decide = Callable[[SiteEvent], bool | None]
"""Opt in (True), out (False), or do not answer (None)."""


class SiteVen:
    """One VEN. `run` it in a task; feed it with `measured`, ask it for `commanded_kw`."""

    def __init__(
        self,
        *,
        vtn_url: str,
        ven_name: str,
        resource_id: str,
        decide: Decide,
        poll_s: float = 10.0,
        report_s: float = 60.0,
        tls: VenTls | None = None,
        outbox: int = 10_000,
    ) -> None:
        """`poll_s` and `report_s` are wall seconds; `outbox` bounds what waits for the VTN."""
        self._name = ven_name
        self._resource = resource_id
        self._url = vtn_url
        self._tls = tls
        self._decide = decide
        self._poll_s = poll_s
        self._report_s = report_s
        self._outbox: deque[_Sample] = deque(maxlen=outbox)
        self._events: dict[str, SiteEvent] = {}
        self._ven_id: str | None = None
        self._registration: str | None = None
        self._request: str | None = None
        self._registering = asyncio.Lock()
        self.dropped = 0
        """Readings that the full outbox pushed out."""
        self.registrations = 0
        """Times the VTN gave (or confirmed) a registration."""

    @property
    def waiting(self) -> int:
        """Readings that the VTN has not accepted yet."""
        return len(self._outbox)

    @property
    def events(self) -> tuple[SiteEvent, ...]:
        """What the VTN last said, and the site's answers."""
        return tuple(self._events.values())

    def commanded_kw(self, now_wall: datetime) -> float | None:
        """Injection-positive power of the event in force, or None."""
        running = [event for event in self._events.values() if event.in_force(now_wall)]
        if not running:
            return None
        return 0.0 - max(running, key=lambda event: event.start).load_kw

    def measured(self, start_wall: datetime, mean_kw: float) -> None:
        """Queue one mean power (injection-positive); its span is known to the VTN.

        Raises:
            ValueError: the power is no number; its report would be refused for ever.
        """
        if not math.isfinite(mean_kw):
            msg = f"{mean_kw} is no power"
            raise ValueError(msg)
        if len(self._outbox) == self._outbox.maxlen:
            self.dropped += 1
        self._outbox.append(_Sample(start_wall, mean_kw))

    async def run(self) -> None:
        """Register, poll and report until cancelled; survives an absent VTN."""
        client = self._client()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._every(self._poll_s, client, self._poll))
                tasks.create_task(self._every(self._report_s, client, self._report))
        finally:
            if client.client_session is not None:
                await client.client_session.close()

    def _client(self) -> Any:
        tls = self._tls
        client = OpenADRClient(
            ven_name=self._name,
            vtn_url=self._url,
            cert=str(tls.certificate) if tls else None,
            key=str(tls.key) if tls else None,
            ca_file=str(tls.ca_certificate) if tls else None,
            show_fingerprint=False,
            disable_signature=True,
        )
        client.add_report(
            callback=_nothing,  # the outbox is what is sent
            resource_id=self._resource,
            r_id=self._resource,
            report_specifier_id=f"power-{self._resource}",
            report_type="usage",
            reading_type="Mean",
            report_duration=timedelta(hours=1),
            measurement=_real_power(),
            scale="k",
            sampling_rate=timedelta(seconds=max(1, round(self._report_s))),
        )
        return client

    async def _every(self, seconds: float, client: Any, step: Callable[[Any], Any]) -> None:
        while True:
            if self._registration is not None or await self._register(client):
                await step(client)
            await asyncio.sleep(seconds)

    async def _register(self, client: Any) -> bool:
        """Register, offer the report, fetch all events. False when the VTN is away or refuses."""
        async with self._registering:
            if self._registration is not None:
                return True
            _, answer = await self._ask(
                client, "EiRegisterParty", "oadrCreatePartyRegistration",
                ven_name=self._name, http_pull_model=True, xml_signature=False,
                report_only=False, profile_name="2.0b", transport_name="simpleHttp",
            )  # fmt: skip
            registration, ven_id = answer.get("registration_id"), answer.get("ven_id")
            if not registration or not ven_id:
                return False
            self._ven_id = str(ven_id)
            await self._offer_report(client)
            kind, answer = await self._ask(client, "EiEvent", "oadrRequestEvent")
            if kind is None:
                return False
            self._registration = str(registration)
            self.registrations += 1
            await self._take(client, answer)
            return True

    async def _offer_report(self, client: Any) -> None:
        reports = [replace(client.reports[0], created_date_time=datetime.now(UTC))]
        _, answer = await self._ask(client, "EiReport", "oadrRegisterReport", reports=reports)
        requests = answer.get("report_requests", [])
        self._request = str(requests[0]["report_request_id"]) if requests else None
        if self._request is None:
            return
        await self._ask(
            client, "EiReport", "oadrCreatedReport",
            pending_reports=[{"report_request_id": self._request}],
            response=_ok(answer.get("response", {}).get("request_id")),
        )  # fmt: skip

    async def _poll(self, client: Any) -> None:
        kind, answer = await self._ask(client, "OadrPoll", "oadrPoll")
        if kind == "oadrDistributeEvent":
            await self._take(client, answer)
        elif kind == "oadrRequestReregistration":
            self._registration = None

    async def _take(self, client: Any, answer: dict[str, Any]) -> None:
        """Take a full set of events in: what is missing from it is cancelled."""
        told = [_event(event) for event in answer.get("events", [])]
        known = self._events
        self._events = {}
        replies = []
        for event in told:
            before = known.get(event.id)
            same = before is not None and before.modification == event.modification
            opted = before.opted_in if before is not None and same else None
            opted = self._decide(event) if opted is None else opted
            self._events[event.id] = replace(event, opted_in=opted)
            if opted is not None:
                replies.append(_reply(event, answer.get("request_id"), opted=opted))
        if replies:
            response = _ok(answer.get("request_id"))
            await self._ask(
                client, "EiEvent", "oadrCreatedEvent", response=response, event_responses=replies
            )

    async def _report(self, client: Any) -> None:
        """Send what waits, oldest first; it leaves the outbox when the VTN accepted it."""
        while self._outbox and self._request is not None:
            batch = list(self._outbox)[:_BATCH]
            kind, answer = await self._ask(
                client, "EiReport", "oadrUpdateReport", reports=[self._bundle(batch)]
            )
            if kind == "oadrRequestReregistration":
                self._registration = None
            accepted = answer.get("response", {}).get("response_code") == 200  # noqa: PLR2004
            if kind != "oadrUpdatedReport" or not accepted:
                return
            for sample in batch:
                if self._outbox and self._outbox[0] is sample:
                    self._outbox.popleft()

    def _bundle(self, batch: list[_Sample]) -> Any:
        return objects.Report(
            report_specifier_id=f"power-{self._resource}",
            report_name="TELEMETRY_USAGE",
            report_request_id=self._request,
            dtstart=batch[0].start,
            intervals=[
                objects.ReportInterval(
                    dtstart=sample.start,
                    report_payload=objects.ReportPayload(
                        r_id=self._resource, value=0.0 - sample.mean_kw
                    ),
                )
                for sample in batch
            ],
        )

    async def _ask(
        self, client: Any, service: str, kind: str, **payload: Any
    ) -> tuple[str | None, dict[str, Any]]:
        """One request and its answer; (None, {}) when there is none that can be used."""
        message = create_message(
            kind, ven_id=self._ven_id, request_id=generate_id(), disable_signature=True, **payload
        )
        # the client's public methods neither say whether a report was accepted nor survive an
        # empty reply; this is what they all go through
        answer = await client._perform_request(service, message)  # noqa: SLF001
        if answer is None or answer[0] is None:
            return None, {}
        return str(answer[0]), dict(answer[1])


def _event(told: dict[str, Any]) -> SiteEvent:
    descriptor, period = told["event_descriptor"], told["active_period"]
    signals = told["event_signals"]
    return SiteEvent(
        id=str(descriptor["event_id"]),
        modification=int(descriptor["modification_number"]),
        status=str(descriptor["event_status"]),
        start=period["dtstart"],
        end=period["dtstart"] + period["duration"],
        load_kw=float(signals[0]["intervals"][0]["signal_payload"]),
    )


def _reply(event: SiteEvent, request_id: Any, *, opted: bool) -> dict[str, Any]:
    return {
        "response_code": 200,
        "response_description": "OK",
        "opt_type": "optIn" if opted else "optOut",
        "request_id": request_id,
        "modification_number": event.modification,
        "event_id": event.id,
    }


def _ok(request_id: Any) -> dict[str, Any]:
    return {"response_code": 200, "response_description": "OK", "request_id": request_id}


def _nothing() -> float:
    return 0.0


def _real_power() -> Any:
    """A copy of its own: the library's shared measurement changes with every scale."""
    return objects.Measurement(
        name="powerReal",
        description="RealPower",
        unit="W",
        acceptable_units=["W"],
        scale="k",
        power_attributes=objects.PowerAttributes(hertz=60, voltage=277, ac=True),
    )
