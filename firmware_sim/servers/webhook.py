"""An aggregator's side of the webhook: checks who speaks, decides once, holds what it accepted.

It follows the three rules of `adapters/webhook/wire.py`: a message it has seen is answered as
before, an older message never replaces a newer one, and nothing is held beyond its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from adapters.webhook.signature import SIGNATURE, Verdict, verify
from adapters.webhook.wire import (
    MAX_BODY_BYTES,
    Answer,
    Dispatch,
    Message,
    Notification,
    Ping,
    Status,
    WireError,
    decode,
    encode,
)

Decide = Callable[[Dispatch], tuple[bool, str]]
"""Whether the aggregate follows a dispatch, and why not."""
_REMEMBERED: Final = 10_000
"""Answers that are kept, so that a repeat gets the same."""
_REFUSED: Final = 409
_GONE: Final = 410


class Aggregator:
    """One receiver; an async context manager that listens on loopback while it is open."""

    def __init__(
        self,
        decide: Decide,
        *,
        secrets: Sequence[str] = (),
        now: Callable[[], float] = time.time,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """`now` gives wall seconds since 1970; port 0 takes a free one."""
        self._decide = decide
        self._now = now
        self._host = host
        self._port = port
        self._answers: dict[str, tuple[int, Answer]] = {}
        self._newest: dict[tuple[str, str], tuple[int, datetime]] = {}
        self._held: dict[str, Dispatch] = {}
        self._runner: web.AppRunner | None = None
        self.secrets = list(secrets)
        """Secrets that are valid here; the first comes with the registration."""
        self.decided: list[Dispatch] = []
        """Dispatches and cancellations that took effect or were refused, each once."""
        self.notified: list[Notification] = []
        """Notifications, each once."""
        self.rejected: list[str] = []
        """Why requests were turned away before they were read."""

    def keys(self) -> Sequence[str]:
        """Secrets that a message may be signed with."""
        return self.secrets

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        return self._port

    @property
    def url(self) -> str:
        """Where messages are taken."""
        return f"http://{self._host}:{self._port}/hook"

    @property
    def status_url(self) -> str:
        """Where it can be asked about an order."""
        return f"http://{self._host}:{self._port}/orders"

    async def __aenter__(self) -> Self:
        """Listen."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.add_routes([
            web.get("/hook", self._echo), web.post("/hook", self._take),
            web.get("/orders/{order}", self._tell),
        ])  # fmt: skip
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def commanded_kw(self, at: datetime, device_id: str | None = None) -> float | None:
        """Power that was accepted for an instant (wall time); None = the aggregate is free.

        Where several aggregates are served here, `device_id` says which.
        """
        held = self._in_force(at, lambda d: device_id in {None, d.device_id})
        return None if held is None else held.power_kw

    async def _echo(self, request: web.Request) -> web.Response:
        """Answer the challenge of a registration."""
        return web.Response(text=request.query.get("echo", ""))

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not self._genuine(request, body):
            return web.Response(status=401)
        try:
            message = decode(body)
        except WireError as error:
            self.rejected.append(str(error))
            return _response(422, Answer(status="refused", reason=str(error)))
        known = self._answers.get(message.id)
        if known is None:
            known = self._answers[message.id] = self._obey(message)
            if len(self._answers) > _REMEMBERED:
                del self._answers[next(iter(self._answers))]
        return _response(*known)

    async def _tell(self, request: web.Request) -> web.Response:
        if not self._genuine(request, request.raw_path.encode()):
            return web.Response(status=401)
        order = request.match_info["order"]
        held = self._in_force(self._instant(), lambda d: d.order_id == order)
        status = Status(active=False)
        if held is not None:
            status = Status(active=True, setpoint_id=held.id, power_kw=held.power_kw)
        return web.Response(body=encode(status), content_type="application/json")

    def _genuine(self, request: web.Request, signed: bytes) -> bool:
        header = request.headers.get(SIGNATURE, "")
        verdict = verify(header, signed, self.keys(), now=self._now())
        if verdict is not Verdict.GENUINE:
            self.rejected.append(verdict.value)
        return verdict is Verdict.GENUINE

    def _obey(self, message: Message) -> tuple[int, Answer]:
        if isinstance(message, Ping):
            return 200, Answer(status="accepted")
        if isinstance(message, Notification):
            self.notified.append(message)
            return 200, Answer(status="accepted")
        key = (message.order_id, message.device_id)
        newest = self._newest.get(key)
        if newest is not None and message.order < newest:
            return _REFUSED, Answer(status="refused", reason="a newer message is known")
        if message.valid_until <= self._instant():
            return _GONE, Answer(status="refused", reason="its time is over")
        self._newest[key] = message.order
        self.decided.append(message)
        accepted, reason = (True, "") if message.cancelled else self._decide(message)
        if not accepted:
            return 200, Answer(status="refused", reason=reason)
        self._held = {
            name: held for name, held in self._held.items()
            if (held.order_id, held.device_id) != key and held.valid_until > self._instant()
        }  # fmt: skip
        if not message.cancelled:
            self._held[message.id] = message
        return 200, Answer(status="accepted")

    def _in_force(self, at: datetime, chosen: Callable[[Dispatch], bool]) -> Dispatch | None:
        running = [
            held for held in self._held.values()
            if held.valid_from <= at < held.valid_until and chosen(held)
        ]  # fmt: skip
        return max(running, key=lambda held: (held.valid_from, *held.order), default=None)

    def _instant(self) -> datetime:
        return datetime.fromtimestamp(self._now(), UTC)


def _response(status: int, answer: Answer) -> web.Response:
    return web.Response(status=status, body=encode(answer), content_type="application/json")
