"""When a unit that does not answer is worth a word."""

from __future__ import annotations

from datetime import datetime
from typing import Final

_POLLS: Final = 2
"""Polls in a row without an answer: one may be a lost frame."""


class Silence:
    """Counts the polls of one unit that stayed without an answer."""

    def __init__(self) -> None:
        self.since: datetime | None = None
        """Market time of the first of them; None while the unit answers."""
        self._polls = 0

    def failed(self, at: datetime) -> bool:
        """Note a poll without an answer; True once per silence, when it is long enough."""
        self.since = self.since or at
        self._polls += 1
        return self._polls == _POLLS

    def answered(self) -> None:
        """The unit speaks."""
        self.since = None
        self._polls = 0
