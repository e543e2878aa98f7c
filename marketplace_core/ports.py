"""What the core and the stages ask of the outside world."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.dispatch.setpoint import ReadBack, Setpoint, SetpointOutcome
from marketplace_core.events import Fact
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading


class Clock(Protocol):
    """Market time, and the monotonic time of leases and timeouts."""

    def now(self) -> datetime:
        """Current market time, aware UTC."""

    def monotonic(self) -> float:
        """Monotonic seconds of the wall; never scaled."""

    def wall_seconds(self, market_seconds: float) -> float:
        """Wall seconds that a span of market time takes (identity unless simulated)."""

    async def sleep_until(self, at: datetime) -> None:
        """Return once market time has reached `at`."""


class TimeMap(Protocol):
    """The one affine map between market time and wall time; identity in production.

    Only adapters and the simulator apply it: wires carry wall time, the inside is market time.
    """

    @property
    def speed(self) -> float:
        """Market seconds per wall second; 1.0 in production."""

    def to_market(self, wall: datetime) -> datetime:
        """Market time of a wall instant (both aware UTC)."""

    def to_wall(self, market: datetime) -> datetime:
        """Wall time of a market instant (both aware UTC)."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A fact as it stands in the journal."""

    shard: int
    sequence: int
    """1, 2, 3, ... within the shard, without gaps."""
    at: datetime
    """Market time of the commit."""
    stream: str
    """Order id, or need id for market facts; one stream lives in one shard."""
    fact: Fact


class Subscription(Protocol):
    """What one subscriber of the bus has not taken yet."""

    async def take(self) -> list[Record] | None:
        """Wait for records; None when some may be missing and the journal must be read.

        A record may come more than once.
        """

    def acknowledge(self) -> None:
        """Everything taken so far is dealt with, so it need not come again after a crash."""


class Bus(Protocol):
    """Carries committed records to whoever subscribed; may lose them, but says so."""

    def subscribe(self, group: str) -> Subscription:
        """A subscription that sees everything published from now on.

        `group` names the subscriber across restarts; of the processes of one group, one
        gets each record.
        """

    def publish(self, records: list[Record]) -> None:
        """Offer committed records to every subscriber; never blocks and never fails."""

    async def run(self) -> None:
        """Do what carrying takes, until cancelled; nothing is lost for being published before."""

    async def close(self) -> None:
        """Give up what `run` opened; after it."""


class ReadingSink(Protocol):
    """Takes readings in from adapters."""

    async def store(self, readings: Sequence[Reading]) -> None:
        """Return only after the readings are committed; duplicates vanish. Raises StoreError."""

    def quarantine(self, *, source: str, reason: str, evidence: bytes, device_id: str = "") -> None:
        """Put a malformed message aside, counted and shown; never raises.

        `device_id` says whose message it was, where that is known.
        """

    def noticed(self, *, device_id: str, kind: FlagKind, since: datetime, evidence: str) -> None:
        """Say what is wrong with a device as its protocol shows it; never raises.

        `since` is the market time from which on it could be seen.
        """


class DeviceAdapter(Protocol):
    """One protocol's devices. One contract suite runs over the fake and every real adapter."""

    @property
    def protocol(self) -> str:
        """`mqtt`, `sparkplug`, `modbus`, `openadr` or `webhook`."""

    def profiles(self) -> Sequence[DeviceProfile]:
        """Every device this adapter speaks to."""

    async def run(self, sink: ReadingSink, *, ready: Callable[[], None]) -> None:
        """Hold connections and stream readings until cancelled.

        Calls `ready` once the adapter can take setpoints. An unreachable device never
        keeps an adapter from becoming ready: it is degraded, shown and retried.
        """

    def issue(self, setpoints: Sequence[Setpoint]) -> AsyncIterator[Sequence[SetpointOutcome]]:
        """Send setpoints and yield outcomes in batches as they arrive.

        Exactly one outcome per setpoint. Issuing an id again is harmless and also serves
        as the refresh of its lease. Never retries a write by itself.
        """

    async def release(self, device_id: str, *, order_id: str, revision: int) -> SetpointOutcome:
        """Return a device to its fallback, now; `setpoint_id` of the outcome is empty.

        Repeating it is harmless; a device that already holds a newer revision, or another
        order's setpoint, keeps it. A device that is not bound here is Refused.
        """

    async def read_back(self, device_id: str) -> ReadBack:
        """Ask a device what it is doing. Raises DeviceError when it cannot be asked."""

    def connected(self, device_id: str) -> bool:
        """Whether the device was heard of recently enough to be believed present."""
