"""Whether a server that we can do without is away: counted, logged once, shown."""

from __future__ import annotations

from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)


class Outage:
    """One server as several connections see it."""

    def __init__(self, server: str, show: Callable[[bool], None]) -> None:
        """`show` hears of every failure (True) and of the recovery (False)."""
        self._server = server
        self._show = show
        self._failing: set[str] = set()

    def failed(self, part: str, error: Exception) -> None:
        """A connection failed; the first one is logged."""
        if not self._failing:
            _log.warning("server_away", server=self._server, part=part, error=str(error))
        self._failing.add(part)
        self._show(True)

    def recovered(self, part: str) -> None:
        """A connection works; when it was the last that failed, that is logged."""
        if part in self._failing:
            self._failing.remove(part)
            if not self._failing:
                _log.info("server_back", server=self._server)
                self._show(False)

    def over(self, part: str) -> bool:
        """Whether a part has no trouble."""
        return part not in self._failing
