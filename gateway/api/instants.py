"""Instants in requests: with an offset, and within what can be reckoned with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""Far enough for every contract, near enough that sums of times stay dates."""


def _to_utc(at: datetime) -> datetime:
    if not EARLIEST <= at < LATEST:
        raise ValueError(f"an instant lies between {EARLIEST.year} and {LATEST.year}")
    return at.astimezone(UTC)


Instant = Annotated[AwareDatetime, AfterValidator(_to_utc)]
"""An ISO 8601 instant with an offset, as UTC."""
