"""What the broker has not acknowledged yet, in the form gmqtt keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Unacknowledged:
    """Stands in for gmqtt's store of messages in flight and says when one left it.

    Nothing is replayed by the library: a session's messages end with its connection, and
    whoever sent a command learns from its missing answer that it is unconfirmed.
    """

    def __init__(self, freed: Callable[[], None]) -> None:
        """`freed` is called whenever the broker acknowledged a message."""
        self._freed = freed
        self._ids: set[int] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in flight."""
        return not self._ids

    def push_message(self, mid: int, _package: bytes) -> None:
        """Note a message in flight."""
        self._ids.add(mid)
        self._empty.clear()

    def remove_message_by_mid(self, mid: int) -> None:
        """The broker acknowledged a message."""
        self._ids.discard(mid)
        if not self._ids:
            self._empty.set()
        self._freed()

    def clear(self) -> None:
        """Forget everything: the broker knows nothing of an earlier session."""
        self._ids.clear()
        self._empty.set()

    def get_all(self) -> list[tuple[int, bytes]]:
        """Nothing to replay."""
        return []

    async def wait_empty(self) -> None:
        """Return once nothing is in flight."""
        await self._empty.wait()
