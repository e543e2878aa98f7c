"""What the webhook adapter is configured with, and what it asks of the outside."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, Protocol

from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.errors import ConfigError

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, kw_only=True)
class WebhookDevice:
    """One aggregate: a seller's portfolio that is dispatched as a whole."""

    device_id: str
    organisation: str
    """Whose registered endpoint takes its dispatches."""
    profile: DeviceProfile

    def __post_init__(self) -> None:
        """Raises ConfigError for a lease that a message cannot carry."""
        if self.profile.lease is not LeaseKind.EVENT_END:
            raise ConfigError(
                f"webhook.devices.{self.device_id}.profile.lease: a message carries its own end, "
                'write lease = "event_end"'
            )


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where an organisation takes messages."""

    id: str
    organisation: str
    url: str
    status_url: str = ""
    """Base of `GET <status_url>/<order id>`; empty = it cannot be asked."""
    secrets: tuple[str, ...] = field(repr=False)
    """Newest first; two while one is being rotated. Never logged."""


@dataclass(frozen=True, kw_only=True)
class WebhookPolicy:
    """Limits of every exchange. All seconds are wall seconds."""

    lab: bool = False
    """Allow loopback addresses, and plain http to them."""
    allow_addresses: tuple[Network, ...] = ()
    """Networks that may be spoken to although they are not public."""
    connect_timeout_s: float = 3.0
    answer_timeout_s: float = 10.0
    """From the start of an attempt to the last byte of its answer."""
    attempts: int = 4
    backoff_s: float = 1.0
    """Longest wait before the second attempt; it doubles, and is drawn with full jitter."""
    concurrency: int = 64
    """Attempts under way at once over all endpoints, for commands and for notices each."""
    per_endpoint: int = 8
    """Attempts under way at once to one endpoint."""
    broken_after: int = 5
    """Failures in a row after which an endpoint is marked broken."""
    trial_every_s: float = 5.0
    """How often a broken endpoint is tried."""
    ping_s: float = 60.0
    """How often an endpoint is pinged, so that a dead one is noticed before an event."""

    def __post_init__(self) -> None:
        """Raises ConfigError when a connection could outlast its attempt."""
        if self.answer_timeout_s <= 2 * self.connect_timeout_s:
            raise ConfigError(
                "webhook.answer_timeout_s: must be more than twice webhook.connect_timeout_s "
                "(TCP and TLS are timed each)"
            )


def networks(names: tuple[str, ...]) -> tuple[Network, ...]:
    """Networks or single addresses by their text; raises ConfigError."""
    try:
        return tuple(ip_network(name) for name in names)
    except ValueError as error:
        raise ConfigError(f"webhook.allow_addresses: {error}") from error


class DeliveryStatus(enum.Enum):
    """Where a delivery stands."""

    PENDING = "pending"
    """Attempted, or about to be: its end is not known."""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    """Nothing was sent."""
    UNCONFIRMED = "unconfirmed"
    """Sent, and never answered in a way that can be relied on."""
    DEAD = "dead"
    """Given up for good."""


COMMANDS: Final = frozenset({"dispatch", "cancellation"})
"""Kinds of delivery that command an aggregate."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One message on its way to one endpoint."""

    id: str
    """The same for every attempt, also after a restart."""
    endpoint: Endpoint
    message_id: str
    kind: str
    """`dispatch`, `cancellation`, `ping` or the name of an event."""
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt that is about to be made."""

    number: int
    """1 first, counted over restarts."""
    body: bytes
    """The bytes of the first attempt: a repeat is the same message."""


class DeliveryLog(Protocol):
    """Remembers deliveries durably."""

    async def attempting(self, delivery: Delivery) -> Attempt:
        """Commit that an attempt is about to be made. Raises StoreError."""

    async def ended(
        self, delivery: Delivery, status: DeliveryStatus, *, detail: str, latency_s: float | None
    ) -> None:
        """Commit how a delivery ended."""


Directory = Callable[[str], Awaitable[Endpoint | None]]
"""The endpoint that takes an organisation's dispatches now; None while it has none."""
