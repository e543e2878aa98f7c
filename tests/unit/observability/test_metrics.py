"""Metrics: named by Prometheus' conventions, there from the start, parsed by its parser."""

from __future__ import annotations

import math
import re

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.observability.metrics import PROTOCOLS, Metrics

BASE_UNITS = ("seconds", "bytes", "watts", "ratio", "total", "info")
NOT_BASE = re.compile(
    r"(milli|micro|nano|kilo)?(second|minute|hour|day)s?_?|_(ms|us|kw|kwh|mw|percent|kb|mb)(_|$)"
)


def families(metrics: Metrics) -> dict[str, Metric]:
    text = metrics.exposition().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def complaints(family: Metric) -> list[str]:
    """What promtool would say of a metric's name, type and help."""
    found = []
    samples = {sample.name for sample in family.samples}
    if not family.documentation:
        found.append("no help")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", family.name) or "__" in family.name:
        found.append("not snake case")
    if (family.type == "counter") != any(name.endswith("_total") for name in samples):
        found.append("_total belongs to counters and only to them")
    if NOT_BASE.search(family.name.replace("_seconds", "")):
        found.append("not a base unit")
    if family.name.endswith(("_gauge", "_counter", "_histogram", "_count", "_sum", "_bucket")):
        found.append("the type stands in the name")
    labels = {label for sample in family.samples for label in sample.labels}
    if labels & {"device", "device_id", "order_id", "organisation"}:
        found.append("a label without bound")
    return found


@pytest.mark.parametrize("name", sorted(families(Metrics())))
def test_a_name_keeps_the_conventions(name: str) -> None:
    assert complaints(families(Metrics())[name]) == []


@pytest.mark.parametrize(
    ("name", "kind", "complaint"),
    [
        ("flexway_lag_milliseconds", "gauge", "not a base unit"),
        ("flexway_power_kw", "gauge", "not a base unit"),
        ("flexway_share_percent", "gauge", "not a base unit"),
        ("flexway_things_total", "gauge", "_total belongs to counters and only to them"),
        ("flexwayThings", "gauge", "not snake case"),
    ],
)
def test_a_bad_name_is_caught(name: str, kind: str, complaint: str) -> None:
    family = Metric(name, "help", kind)
    family.add_sample(name, {}, 1.0)
    assert complaint in complaints(family)


@pytest.mark.parametrize(
    ("family", "label", "values"),
    [
        ("flexway_orders", "state",
         {"submitted", "rejected", "awarded", "planned", "infeasible", "settled",
          "stopped"}),
        ("flexway_setpoints", "outcome",
         {"issued", "applied", "refused", "unreachable", "unconfirmed"}),
        ("flexway_setpoints_open", "state",
         {"planned", "issued", "applied", "refused", "unreachable", "unconfirmed"}),
        ("flexway_dead_letters", "stage",
         {"award", "plan", "dispatch", "observe", "verify", "settle", "notify"}),
        ("flexway_devices_never_reported", "protocol", set(PROTOCOLS)),
        ("flexway_reading_age_seconds_max", "protocol", set(PROTOCOLS)),
        ("flexway_dispatch_compliance_ratio", "protocol", set(PROTOCOLS)),
        ("flexway_adapter_up", "protocol", set(PROTOCOLS)),
        ("flexway_writer_queue_depth", "writer", {"market", "readings"}),
    ],
)  # fmt: skip
def test_every_label_is_there_before_anything_happened(
    family: str, label: str, values: set[str]
) -> None:
    samples = families(Metrics())[family].samples
    assert {s.labels[label] for s in samples if not s.name.endswith("_created")} == values


def test_every_metric_of_ours_has_a_sample_from_the_start() -> None:
    found = families(Metrics())
    empty = [name for name, family in found.items() if not family.samples]
    assert empty == []
    assert len([name for name in found if name.startswith("flexway_")]) >= 30


def test_nothing_runs_is_not_the_same_as_nothing_delivered() -> None:
    found = families(Metrics())
    ratios = [s.value for s in found["flexway_dispatch_compliance_ratio"].samples]
    assert all(math.isnan(value) for value in ratios)
    assert math.isnan(found["flexway_lease_seconds_left_min"].samples[0].value)


def test_process_and_build_are_shown() -> None:
    found = families(Metrics())
    assert found["process_resident_memory_bytes"].samples[0].value > 1e6
    (sample,) = found["flexway_build_info"].samples
    assert sample.labels["version"]
