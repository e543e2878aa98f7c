"""Webhooks as their organisation sees them, and answers about them as they are kept."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec
from sqlalchemy import Connection


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint as its organisation sees it; never with a secret."""

    id: str
    url: str
    status_url: str
    events: tuple[str, ...]
    created: datetime
    state: str
    """`unheard` since the start of the service, `healthy`, `failing` or `broken`."""
    last_fault: str
    previous_secret_until: datetime | None


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that shows a secret, as it is kept: the secret stands sealed."""

    view: WebhookView
    sealed: bytes


class Answers(Protocol):
    """Keeps the answer to one request, so that a repeat gets it and does nothing."""

    def kept(self, connection: Connection) -> bytes | None:
        """The answer of the first time; RejectedError when it was to another request."""

    def keep(self, connection: Connection, body: bytes) -> None:
        """Keep an answer, in the transaction of what it answers."""


class PingResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a test delivery."""

    delivered: bool
    http_status: int | None
    latency_ms: int | None
    detail: str
