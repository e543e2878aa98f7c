"""A unit that does not answer is left alone for a while, so that its neighbours go on."""

from __future__ import annotations

from typing import Final

_BACKOFF_BASE_S: Final = 1.0
_BACKOFF_CAP_S: Final = 60.0


class Breaker:
    """Opens at a failure, for twice as long each time, until the unit answers."""

    def __init__(self) -> None:
        self.failures = 0
        self.open_until = 0.0
        """Monotonic seconds."""

    def failed(self, now: float) -> None:
        """No usable answer came."""
        self.failures += 1
        pause = _BACKOFF_BASE_S * 2 ** min(self.failures - 1, 16)
        self.open_until = now + min(_BACKOFF_CAP_S, pause)
