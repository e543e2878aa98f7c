"""What is missing among the readings, counted when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol, runtime_checkable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.store.readings import Gaps
from marketplace_core.ports import DeviceAdapter

NUMBERED: Final = ("mqtt", "sparkplug")
"""Protocols whose messages or readings are numbered."""


@runtime_checkable
class Counting(Protocol):
    """An adapter that follows sequence numbers."""

    @property
    def gaps(self) -> dict[str, int]:
        """What a device, or the way to us, lost for good since the start, per device."""

    @property
    def given_up(self) -> int:
        """The same of all: readings, or messages where a protocol numbers those."""

    @property
    def shed(self) -> int:
        """Readings dropped since the start because the disk was too far behind."""


def _counted(adapter: object) -> tuple[int, int]:
    return (adapter.given_up, adapter.shed) if isinstance(adapter, Counting) else (0, 0)


class GapCollector(Collector):
    """Gaps of the readings store, and what adapters shed or saw lost; no label per device."""

    def __init__(self, gaps: Callable[[], Gaps], adapters: Mapping[str, DeviceAdapter]) -> None:
        """`gaps` as the readings store says them now."""
        self._gaps = gaps
        self._adapters = adapters

    def describe(self) -> Iterator[Metric]:
        """Names without values: nothing is read at registration."""
        yield from self._families()

    def collect(self) -> Iterator[Metric]:
        """One sample each, or one per protocol that numbers what it sends."""
        missing, opened, closed, given_up, shed = self._families()
        found = self._gaps()
        missing.add_metric([], sum(found.missing.values()))
        opened.add_metric([], found.opened)
        closed.add_metric([], found.closed)
        for protocol in NUMBERED:
            lost, dropped = _counted(self._adapters.get(protocol))
            given_up.add_metric([protocol], lost)
            shed.add_metric([protocol], dropped)
        yield from (missing, opened, closed, given_up, shed)

    def _families(
        self,
    ) -> tuple[
        GaugeMetricFamily, CounterMetricFamily, CounterMetricFamily, CounterMetricFamily,
        CounterMetricFamily,
    ]:  # fmt: skip
        by = ("protocol",)
        return (
            GaugeMetricFamily(
                "flexway_readings_missing", "Readings whose numbers were skipped, not come yet"
            ),
            CounterMetricFamily("flexway_reading_gaps", "Readings found missing"),
            CounterMetricFamily("flexway_reading_gaps_closed", "Missing readings that came late"),
            CounterMetricFamily(
                "flexway_sequence_given_up",
                "What devices or the way to us lost for good: readings, or Sparkplug messages",
                labels=by,
            ),
            CounterMetricFamily(
                "flexway_readings_shed", "Readings dropped because the disk was behind", labels=by
            ),
        )
