"""Where a rule of the market comes from, and how far it can be trusted.

Every number that decides about money or watts is a parameter of a named rule, and
the rule carries the sources of its parts.
"""

from __future__ import annotations

import enum

import msgspec


class Confidence(enum.Enum):
    """How well a statement about a rule is founded, strongest first."""

    READ = "read"
    """Taken from the source that is named."""
    SECONDARY = "secondary"
    """Taken from somebody else's account of the source."""
    OWN = "own"
    """Our own design: no public rule was found."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a rule a work supports."""

    states: str
    """Part of the rule, such as `adjustment cap`."""
    work: str
    as_of: str
    """ISO date of the work as precisely as known, else of the day it was read."""
    confidence: Confidence


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A named, dated rule. Subclasses add its parameters."""

    id: str
    title: str
    sources: tuple[Source, ...]

    @property
    def source(self) -> str:
        """Every source with the part it supports, in one sentence."""
        return "; ".join(
            f"{source.states}: {source.work} [{source.confidence.value}, {source.as_of}]"
            for source in self.sources
        )

    @property
    def as_of(self) -> str:
        """Date of the newest source."""
        return max(source.as_of for source in self.sources)

    @property
    def confidence(self) -> Confidence:
        """Confidence in the rule as a whole: that of its weakest part."""
        order = list(Confidence)
        return max((source.confidence for source in self.sources), key=order.index)
