"""Filling gaps from energy registers: what a meter counted while nobody read it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

_SHORTEST: Final = timedelta(seconds=1)
_LONGEST: Final = timedelta(days=1)
_LEAST_KW: Final = 10.0
_TIMES: Final = 20.0
"""A mean this many times the powers around it (and above the least) is a register that was
reset or exchanged, not energy."""


def fill(before: Reading, after: Reading) -> Reading | None:
    """The reading of the gap between two readings of one series, or None.

    The register moved by the energy of the gap and of the reading after it. Nothing is
    filled where there is no gap, no register, or no sense in the result.
    """
    gap = after.start - before.end
    if before.register_kwh is None or after.register_kwh is None:
        return None
    if not _SHORTEST <= gap <= _LONGEST:
        return None
    moved = after.register_kwh - before.register_kwh
    known = after.power_kw * after.seconds / 3600.0
    mean = (moved - known) / (gap / timedelta(hours=1))
    around = max(abs(before.power_kw), abs(after.power_kw))
    if abs(mean) > max(_LEAST_KW, _TIMES * around):
        return None
    return Reading(
        series=after.series, start=before.end, seconds=gap.total_seconds(), power_kw=Kw(mean)
    )
