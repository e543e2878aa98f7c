"""What is missing, shed and lost, as a scrape sees it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from gateway.observability.gaps import GapCollector
from gateway.store.readings import Gaps


class Numbered:
    gaps = {"ev-1": 2}  # noqa: RUF012 - as much of an adapter as is looked at
    given_up = 2
    shed = 7


def samples(collector: GapCollector) -> dict[tuple[str, str], float]:
    registry = CollectorRegistry()
    registry.register(collector)
    families: list[Metric] = list(registry.collect())
    return {
        (sample.name, sample.labels.get("protocol", "")): sample.value
        for family in families for sample in family.samples
    }  # fmt: skip


def test_gaps_are_summed_over_devices_and_counted_by_protocol() -> None:
    found = Gaps(missing={"ev-1": 2, "ev-2": 3}, opened=9, closed=4)
    assert samples(GapCollector(lambda: found, {"mqtt": Numbered()})) == {  # type: ignore[dict-item]
        ("flexway_readings_missing", ""): 5,
        ("flexway_reading_gaps_total", ""): 9,
        ("flexway_reading_gaps_closed_total", ""): 4,
        ("flexway_sequence_given_up_total", "mqtt"): 2,
        ("flexway_sequence_given_up_total", "sparkplug"): 0,
        ("flexway_readings_shed_total", "mqtt"): 7,
        ("flexway_readings_shed_total", "sparkplug"): 0,
    }
