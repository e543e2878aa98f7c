"""What asks on a line, whatever frames it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol


class NoAnswer(Exception):  # noqa: N818 - it says what happened
    """No usable answer came to a request."""


class Client(Protocol):
    """One connection with one request on its way at a time.

    It repeats nothing and does not connect again by itself.
    """

    transaction: int
    """The number of the request that was sent last; 0 where requests have none."""

    @property
    def connected(self) -> bool:
        """Whether requests can be sent."""

    async def connect(self) -> bool:
        """Make the connection: whether that went well; may raise what the system raises."""

    def exchange(self, unit: int, pdu: bytes) -> Awaitable[bytes]:
        """Send a request, wait for the PDU of its answer; raises NoAnswer."""

    def close(self) -> None:
        """End the connection."""
