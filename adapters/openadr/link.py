"""The VTN's HTTP side: openleadr behind our gate.

openleadr contributes its services and message templates. Its own event queue and report
callbacks live in memory and forget at a restart, so the messages that matter are answered
by a `VenService`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final, Protocol

import structlog
from aiohttp import web
from openleadr import OpenADRServer
from openleadr.messaging import create_message

from adapters.openadr.config import OpenAdrVen, OpenAdrVtn
from adapters.openadr.gate import Caller, Gate, GateKeeper
from adapters.openadr.wire import Message
from marketplace_core.errors import ConfigError, StoreError

_SHUTDOWN_S: Final = 1.0
_RETRY: Final = {"Retry-After": "1"}
_log = structlog.get_logger(__name__)
_caller: ContextVar[Caller] = ContextVar("openadr_caller")


class VenService(GateKeeper, Protocol):
    """What the link asks of whoever knows the VENs, events and reports."""

    def registration(self, ven: OpenAdrVen) -> str | None:
        """Registration id of a VEN, or None."""

    async def register(self, ven: OpenAdrVen) -> str:
        """Register a VEN (again); returns once that is durable."""

    async def deregister(self, ven: OpenAdrVen) -> None:
        """Forget a VEN's registration."""

    async def events(self, ven: OpenAdrVen, *, all_of_them: bool) -> list[dict[str, Any]] | None:
        """The full set of events; None when nothing waits for an answer (unless all)."""

    async def answered(self, ven: OpenAdrVen, message: Message) -> None:
        """A VEN opted in or out."""

    async def offered(self, ven: OpenAdrVen, message: Message) -> list[dict[str, Any]]:
        """A VEN offers reports; returns the report requests."""

    async def reported(self, ven: OpenAdrVen, message: Message) -> None:
        """A VEN reports; returns once what it said is durable. Raises StoreError."""


class VtnLink:
    """Listens, and connects openleadr's services to ours."""

    def __init__(self, config: OpenAdrVtn, vens: Sequence[OpenAdrVen], service: VenService) -> None:
        self._config = config
        self._service = service
        self._by_id = {ven.ven_id: ven for ven in vens}
        self.gate = Gate(config, vens, keeper=service, pass_on=self._pass_on)
        self.port = 0
        """Port that is listened on; 0 until then."""
        self.strangers = 0
        """Registrations refused because nobody configured that VEN."""

    async def run(self, *, listening: Callable[[], None]) -> None:
        """Serve until cancelled. Raises ConfigError when the port or the TLS files fail."""
        tls = self._tls()
        app = self._library().app
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        try:
            sock = self._listen()
            self.port = sock.getsockname()[1]
            await web.SockSite(runner, sock, ssl_context=tls).start()
            _log.info("openadr_vtn_listening", port=self.port, tls=self._config.tls)
            listening()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def _listen(self) -> socket.socket:
        config = self._config
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        try:
            return socket.create_server((config.host, config.port), family=family)
        except OSError as error:
            msg = f"openadr.port: cannot listen on {config.host}:{config.port}: {error}"
            raise ConfigError(msg) from error

    def _tls(self) -> ssl.SSLContext | None:
        config = self._config
        if config.tls_certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(config.ca_certificate)
            context.load_cert_chain(config.tls_certificate, config.tls_key)
        except OSError as error:
            msg = f"openadr.tls_certificate: the TLS files cannot be used: {error}"
            raise ConfigError(msg) from error
        return context

    def _library(self) -> Any:
        """The server of openleadr, with our gate in front and our answers inside."""
        poll = timedelta(seconds=max(1, round(self._config.poll_s)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", web.NotAppKeyWarning)  # it names its app key by a str
            server = OpenADRServer(
                self._config.vtn_id,
                ven_lookup=self._look_up,
                verify_message_signatures=False,
                requested_poll_freq=poll,
                show_fingerprint=False,
            )
        for service in server.services.values():
            # the constructor writes it to the class: two VTNs in one process would share it
            service.ven_lookup = self._look_up
        events, reports = server.services["event_service"], server.services["report_service"]
        server.services["poll_service"].handlers["oadrPoll"] = self._on_poll
        events.handlers["oadrRequestEvent"] = self._on_request_event
        events.handlers["oadrCreatedEvent"] = self._on_created_event
        reports.handlers["oadrRegisterReport"] = self._on_register_report
        reports.handlers["oadrCreatedReport"] = _accept
        registration = server.services["registration_service"]
        registration.on_create_party_registration = self._on_register
        registration.on_cancel_party_registration = self._on_deregister
        server.app.middlewares.append(self.gate.middleware)
        return server

    async def _pass_on(
        self, request: web.Request, handler: Any, caller: Caller
    ) -> web.StreamResponse:
        if caller.ven is not None and caller.message.kind == "oadrUpdateReport":
            return await self._on_report(caller.ven, caller.message)
        token = _caller.set(caller)
        try:
            response: web.StreamResponse = await handler(request)
            return response
        finally:
            _caller.reset(token)

    async def _on_report(self, ven: OpenAdrVen, message: Message) -> web.Response:
        """Answered here: the library drops readings of report requests it has forgotten."""
        if self._service.registration(ven) is None:
            return _xml(create_message("oadrRequestReregistration", ven_id=ven.ven_id))
        try:
            await self._service.reported(ven, message)
        except StoreError as error:
            _log.warning("openadr_report_not_stored", ven=ven.ven_name, error=str(error))
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, headers=_RETRY)
        request_id = message.body.findtext("{*}requestID", "").strip()
        response = {
            "response_code": 200,
            "response_description": "OK",
            "request_id": request_id if _plain(request_id) else "",
        }
        return _xml(create_message("oadrUpdatedReport", response=response, ven_id=ven.ven_id))

    def _look_up(self, ven_id: str) -> dict[str, Any] | None:
        ven = self._by_id.get(str(ven_id))
        if ven is None:
            return None
        return {
            "ven_id": ven.ven_id,
            "ven_name": ven.ven_name,
            "fingerprint": ven.fingerprint,
            "registration_id": self._service.registration(ven),
        }

    async def _on_register(self, payload: Any) -> Any:
        ven = _caller.get().ven
        if ven is None:
            self.strangers += 1
            _log.warning("openadr_ven_unknown", ven_name=str(payload.get("ven_name"))[:80])
            return False
        return ven.ven_id, await self._service.register(ven)

    async def _on_deregister(self, _payload: Any) -> Any:
        ven = _caller.get().ven
        registration = self._service.registration(ven) if ven is not None else None
        if ven is not None:
            await self._service.deregister(ven)
        return "oadrCanceledPartyRegistration", {"registration_id": registration or ""}

    async def _on_poll(self, _payload: Any) -> Any:
        return await self._distribute(all_of_them=False)

    async def _on_request_event(self, _payload: Any) -> Any:
        return await self._distribute(all_of_them=True)

    async def _distribute(self, *, all_of_them: bool) -> Any:
        ven = _caller.get().ven
        events = await self._service.events(ven, all_of_them=all_of_them) if ven else None
        if events is None:
            return "oadrResponse", {}
        return "oadrDistributeEvent", {"events": events}

    async def _on_created_event(self, _payload: Any) -> Any:
        caller = _caller.get()
        if caller.ven is not None:
            await self._service.answered(caller.ven, caller.message)
        return "oadrResponse", {}

    async def _on_register_report(self, _payload: Any) -> Any:
        caller = _caller.get()
        requests = await self._service.offered(caller.ven, caller.message) if caller.ven else []
        return "oadrRegisteredReport", {"report_requests": requests}


def _accept(_payload: Any) -> Any:
    return "oadrResponse", {}


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml")


def _plain(text: str) -> bool:
    """The library's templates do not escape what they are given."""
    return not set(text) & set("<>&")
