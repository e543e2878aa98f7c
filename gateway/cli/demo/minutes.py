"""Readings of any length, as means of whole minutes for the plots."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

MINUTE_S = 60.0
_COVERED = 0.9
"""Share of a minute that readings must cover for its mean to be shown."""


def minute_means(readings: Iterable[Sequence[float]]) -> dict[float, float]:
    """Mean kW by the Unix second at which each minute begins.

    A reading `(start, seconds, kw)` counts in every minute it reaches into, by the time
    it spends there: readings that begin off the minute neither vanish nor count twice.
    """
    energy: dict[float, float] = defaultdict(float)
    covered: dict[float, float] = defaultdict(float)
    for start, seconds, kw in readings:
        end = start + seconds
        minute = math.floor(start / MINUTE_S) * MINUTE_S
        while minute < end:
            inside = min(end, minute + MINUTE_S) - max(start, minute)
            energy[minute] += inside * kw
            covered[minute] += inside
            minute += MINUTE_S
    return {
        minute: energy[minute] / spent
        for minute, spent in sorted(covered.items())
        if spent >= _COVERED * MINUTE_S
    }
