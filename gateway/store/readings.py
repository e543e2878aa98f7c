"""The port of the readings store: what its users see, whichever database is behind it.

Readings stay outside the journal's transactions: nothing ties one to a fact, so no
transaction has to span both.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from marketplace_core.verification.reading import Reading

NEWEST: Final = 2**63 - 1
"""Greater than the number of any message."""


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was put aside."""

    at: datetime
    source: str
    reason: str
    evidence: bytes
    number: int = 0
    """Where it stands in the store, counted from 1; 0 before it is kept."""


class Gaps(msgspec.Struct, frozen=True, kw_only=True):
    """Readings whose numbers were skipped; a device that starts anew makes none."""

    missing: dict[str, int]
    """Of each series that misses any: how many have not come."""
    opened: int
    """Readings found missing, since the start of this process."""
    closed: int
    """Of all that were missing, those that came late, since the start of this process."""


class SeriesData(msgspec.Struct, frozen=True):
    """Readings of one series, oldest first."""

    start_s: npt.NDArray[np.float64]
    """Start of each span, Unix seconds, shape (n,)."""
    seconds: npt.NDArray[np.float64]
    """Length of each span, shape (n,)."""
    power_kw: npt.NDArray[np.float64]
    """Mean power, injection positive, shape (n,)."""


class Readings(Protocol):
    """Stores readings durably, each once by (series, boot, sequence)."""

    @property
    def waiting(self) -> int:
        """Batches that wait for their commit."""

    def start(self) -> None:
        """Begin to take readings."""

    def stop(self) -> None:
        """Commit what is queued, then end."""

    async def store(self, readings: Sequence[Reading]) -> list[Reading]:
        """Commit readings; return those that were new, once they are durable.

        Raises:
            StoreError: they are not stored (or nobody knows); nothing may be acknowledged.
        """

    async def quarantine(self, message: Quarantined) -> None:
        """Keep a malformed message for inspection, its evidence cut to 4,096 bytes."""

    def gaps(self) -> Gaps:
        """Readings that are missing, and what was found missing or came late since the start."""

    def quarantined(self, limit: int = 100, before: int = NEWEST) -> list[Quarantined]:
        """The newest messages put aside, of those before a number."""

    def between(self, series: str, start: datetime, end: datetime) -> SeriesData:
        """Readings of a series that touch `[start, end)` and began at most a day before it."""

    def stored(self, keys: Sequence[tuple[str, datetime]]) -> set[tuple[str, datetime]]:
        """Those of some series and starts that have a reading."""

    def latest(self) -> list[Reading]:
        """The newest reading of every series: what is known of devices after a restart."""
