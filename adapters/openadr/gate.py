"""The gate in front of openleadr: who may speak, and what is read at all.

Order matters: a certificate is checked before the body is read, the body is guarded and
parsed before a name in it is believed, and only then does the library see the request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

import structlog
from aiohttp import web

from adapters.openadr.config import OpenAdrVen, OpenAdrVtn
from adapters.openadr.wire import Message, MessageRefusedError, fingerprint, read_message

REGISTRATION: Final = "oadrCreatePartyRegistration"
_OPEN_KINDS: Final = frozenset({REGISTRATION, "oadrQueryRegistration"})
"""Messages that one may send before it is known."""
_log = structlog.get_logger(__name__)


class GateKeeper(Protocol):
    """What the gate tells of."""

    def heard(self, ven: OpenAdrVen) -> None:
        """A VEN spoke."""

    def quarantine(self, source: str, reason: str, evidence: bytes) -> None:
        """Put a body aside that could not be read."""


@dataclass(frozen=True)
class Caller:
    """Who sent a message, and the message."""

    ven: OpenAdrVen | None
    message: Message


PassOn = Callable[[web.Request, Any, Caller], Awaitable[web.StreamResponse]]


class Gate:
    """An aiohttp middleware that refuses, or passes a request on with its caller."""

    def __init__(
        self,
        config: OpenAdrVtn,
        vens: Sequence[OpenAdrVen],
        *,
        keeper: GateKeeper,
        pass_on: PassOn,
    ) -> None:
        self._config = config
        self._keeper = keeper
        self._pass_on = pass_on
        self._by_name = {ven.ven_name: ven for ven in vens}
        self._by_id = {ven.ven_id: ven for ven in vens}
        self._by_fingerprint = {ven.fingerprint: ven for ven in vens if ven.fingerprint}
        self.held = True
        """While True every VEN is answered 503: a set without its events would cancel them."""
        self.refused: Counter[str] = Counter()
        """Requests turned away, by reason."""

    @web.middleware
    async def middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Answer a request, or pass it on."""
        if request.match_info.http_exception is not None:
            unknown: web.StreamResponse = await handler(request)
            return unknown
        if self.held:
            self.refused["held"] += 1
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "1"})
        known = self._certified(request)
        if self._config.tls and known is None:
            return self._refuse("certificate", "this certificate belongs to no VEN")
        return await self._guarded(request, handler, known)

    async def _guarded(
        self, request: web.Request, handler: Any, known: OpenAdrVen | None
    ) -> web.StreamResponse:
        if not request.content_type.startswith("application/xml"):
            return self._refuse("media_type", "send application/xml", HTTPStatus.BAD_REQUEST)
        body = await self._read(request)
        if body is None:
            reason = f"more than {self._config.max_body_bytes} bytes"
            return self._refuse("size", reason, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            message = read_message(body, max_bytes=self._config.max_body_bytes)
        except MessageRefusedError as error:
            source = f"openadr:{known.ven_name if known else request.remote}"
            self._keeper.quarantine(source, error.message, body)
            return self._refuse(error.rule, error.message, HTTPStatus.BAD_REQUEST)
        caller = self._authorised(message, known)
        if isinstance(caller, str):
            return self._refuse("identity", caller)
        if caller.ven is not None:
            self._keeper.heard(caller.ven)
        return await self._pass_on(request, handler, caller)

    async def _read(self, request: web.Request) -> bytes | None:
        limit = self._config.max_body_bytes
        if request.content_length is not None and request.content_length > limit:
            return None
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            return None

    def _certified(self, request: web.Request) -> OpenAdrVen | None:
        transport = request.transport
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        return self._by_fingerprint.get(fingerprint(der)) if der else None

    def _authorised(self, message: Message, known: OpenAdrVen | None) -> Caller | str:
        """Who speaks, or why it may not. `known` is the owner of the certificate, if any."""
        if message.kind == REGISTRATION:
            named = self._by_name.get(message.ven_name or "")
            if known is not None and named is not known:
                return "the certificate belongs to a VEN of another name"
        else:
            named = known if message.ven_id is None else self._by_id.get(message.ven_id)
        claimed = message.ven_id
        if known is not None and claimed is not None and claimed != known.ven_id:
            return "the certificate belongs to another VEN"
        if named is not None and claimed is not None and claimed != named.ven_id:
            return "this venID belongs to a VEN of another name"
        if named is None and message.kind not in _OPEN_KINDS:
            return "no such VEN"
        return Caller(named, message)

    def _refuse(
        self, reason: str, text: str, status: HTTPStatus = HTTPStatus.FORBIDDEN
    ) -> web.Response:
        self.refused[reason] += 1
        _log.warning("openadr_refused", reason=reason, detail=text[:200])
        return web.Response(status=status, text=text)
