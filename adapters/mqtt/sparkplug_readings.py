"""Readings out of samples: which span a sample of power stands for. Pure.

Sparkplug reports instants. A sample of power stands for the time since the one before it; the
first one says nothing about the time before. A birth says what is now and claims no time: what
was measured while nobody heard may follow as history.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from adapters.mqtt.sparkplug import Sample
from adapters.mqtt.sparkplug_binding import Reported, Role, SparkplugDevice, number
from marketplace_core.ports import TimeMap
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

_LATE: Final = 1.5
"""Intervals after which a sample no longer stands for all the time since the one before."""
_KEPT: Final = 512
"""Spans of one device that are remembered: what falls into an older one is left aside."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Spans:
    """The time that a device's readings cover already, in milliseconds."""

    def __init__(self, interval_ms: float) -> None:
        self._interval_ms = interval_ms
        self._starts: list[int] = []
        self._ends: list[int] = []

    def begin(self, at_ms: int) -> None:
        """Note an instant that the next sample may count from, if none is known."""
        if not self._ends:
            self._keep(0, at_ms, at_ms)

    def claim(self, at_ms: int) -> tuple[int, int] | None:
        """Span that a sample at an instant stands for; None when it stands for none.

        It is the first that is known, or its time is covered already.
        """
        place = bisect.bisect_left(self._ends, at_ms)
        if place < len(self._ends) and self._starts[place] < at_ms <= self._ends[place]:
            return None
        before = self._ends[place - 1] if place else None
        known = before is not None and at_ms - before <= _LATE * self._interval_ms
        start = before if known and before is not None else round(at_ms - self._interval_ms)
        if before is None:
            start = at_ms
        if place < len(self._ends) and self._ends[place] == at_ms:
            self._starts[place] = start  # an instant that was known, and now has a span
        else:
            self._keep(place, start, at_ms)
        return (start, at_ms) if start < at_ms else None

    def _keep(self, place: int, start: int, end: int) -> None:
        self._starts.insert(place, start)
        self._ends.insert(place, end)
        if len(self._ends) > _KEPT:
            del self._starts[0], self._ends[0]


class PowerReadings:
    """Turns the samples of one device into readings."""

    def __init__(self, device: SparkplugDevice, time_map: TimeMap, interval_s: float) -> None:
        """`interval_s`: wall seconds between two samples of power."""
        self._device = device
        self._time = time_map
        self._spans = Spans(interval_s * 1000.0)

    def take(
        self, samples: Sequence[Sample], reported: Reported
    ) -> tuple[list[Reading], list[str]]:
        """Readings of one message, in the order of their time, and what was no number.

        `reported` knows the live values of this message already.
        """
        readings: list[Reading] = []
        faults: list[str] = []
        beside = self._beside(samples, reported, faults)
        for sample in sorted(samples, key=lambda one: one.at_ms):
            for role, meaning in reported.roles_of(sample.name):
                if role != "power":
                    continue
                try:
                    power_kw = number(sample.value, meaning, role)
                    span = None if power_kw is None else self._spans.claim(sample.at_ms)
                    values = beside.get(sample.at_ms, {}) if sample.historical else reported.values
                    if span is not None and power_kw is not None:
                        readings.append(self._reading(span, power_kw, values))
                except (ValueError, OverflowError) as error:
                    faults.append(str(error))
        return readings, faults

    def born(self, samples: Sequence[Sample], reported: Reported) -> None:
        """Begin to count with the first birth; later ones change nothing."""
        for sample in samples:
            if any(role == "power" for role, _ in reported.roles_of(sample.name)):
                self._spans.begin(sample.at_ms)

    def _beside(
        self, samples: Sequence[Sample], reported: Reported, faults: list[str]
    ) -> dict[int, dict[Role, float | None]]:
        """Historical values by their instant."""
        found: dict[int, dict[Role, float | None]] = {}
        for sample in samples:
            for role, meaning in reported.roles_of(sample.name) if sample.historical else ():
                if role == "power":
                    continue
                try:
                    value = number(sample.value, meaning, role)
                except ValueError as error:
                    faults.append(str(error))
                else:
                    found.setdefault(sample.at_ms, {})[role] = value
        return found

    def _reading(
        self, span: tuple[int, int], power_kw: float, values: dict[Role, float | None]
    ) -> Reading:
        start, end = span
        imported, exported = values.get("energy_import"), values.get("energy_export")
        register = None if imported is None or exported is None else exported - imported
        return Reading(
            series=self._device.device_id,
            start=self._time.to_market(_EPOCH + timedelta(milliseconds=start)),
            seconds=(end - start) / 1000.0 * self._time.speed,
            power_kw=Kw(power_kw),
            soc_kwh=values.get("soc"),
            available=values.get("available") != 0.0,
            register_kwh=register,
        )
