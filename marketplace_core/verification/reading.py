"""Meter and telemetry readings: mean power over a span of time."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from marketplace_core.units import Kw


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Mean active power of one series over `[start, start + seconds)`.

    Telemetry that samples instead of averaging states the span a sample stands for.
    """

    series: str
    """Device or meter id."""
    start: datetime
    seconds: float
    power_kw: Kw
    """Injection positive."""
    boot: int = 0
    """Boot counter of the device; with `sequence` it makes a reading unique."""
    sequence: int = -1
    """Counts up from zero per boot; -1 where the source has no sequence (imports, polls)."""
    soc_kwh: float | None = None
    """Energy stored in the device, where it has storage."""
    available: bool = True
    """Whether the device says it can be driven now (a car is plugged in, a battery is healthy)."""
    sample_kw: Kw | None = None
    """Instantaneous power at the end of the span, where it differs from the mean."""
    register_kwh: float | None = None
    """Net energy register (export minus import) at the end of the span: a gap is filled from it."""
    wanted_kwh: float | None = None
    """Energy that a load with a deadline (a plugged-in car) still wants to take."""
    leaves_at: datetime | None = None
    """The deadline: when it must have what it wants, as its owner said."""

    @property
    def end(self) -> datetime:
        """End of the span."""
        return self.start + timedelta(seconds=self.seconds)
