"""Whether the process is alive and can do its work."""

from __future__ import annotations


class Health:
    """Collects what keeps the service from being ready, and what degrades it."""

    def __init__(self, waiting_for: set[str]) -> None:
        """`waiting_for` names the parts that have to report before the service is ready."""
        self._waiting = set(waiting_for)

    def ready(self, part: str) -> None:
        """A part reports that it is ready."""
        self._waiting.discard(part)

    @property
    def waiting_for(self) -> list[str]:
        """Parts that have not reported yet; empty = ready."""
        return sorted(self._waiting)
