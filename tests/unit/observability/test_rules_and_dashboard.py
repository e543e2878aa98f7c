"""Alert rules and dashboard: every expression parses and asks for series that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.observability.gaps import GapCollector
from gateway.observability.metrics import Metrics
from gateway.store.readings import Gaps

ROOT = Path(__file__).parents[3]
RULES = yaml.safe_load((ROOT / "config/alerts.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((ROOT / "config/dashboard.json").read_text(encoding="utf-8"))
MONITORING = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
MADE_BY_PROMETHEUS = {"up"}
SEVERITIES = {"info", "warning", "critical"}
SET_BY_PROMETHEUS = {"job", "instance"}
WANTED = {
    "FlexwayDeviceNeverReported": "flexway_devices_never_reported",
    "FlexwayStaleData": "flexway_devices_stale",
    "FlexwayLeaseAboutToLapse": "flexway_lease_seconds_left_min",
    "FlexwayComplianceLow": "flexway_dispatch_compliance_ratio",
    "FlexwaySetpointsUnconfirmed": "flexway_setpoints_open",
    "FlexwayJournalRootStale": "flexway_journal_root_age_seconds",
    "FlexwayQuarantineRising": "flexway_messages_quarantined_total",
    "FlexwayEventLoopLag": "flexway_event_loop_lag_seconds_bucket",
    "FlexwayDeadLetters": "flexway_dead_letters_total",
    "FlexwayAdapterDisconnected": "flexway_adapter_up",
}


def exposed() -> dict[str, list[dict[str, str]]]:
    """Name -> labels of every series that a fresh gateway shows."""
    metrics = Metrics()
    nothing = Gaps(missing={}, opened=0, closed=0)
    metrics.registry.register(GapCollector(lambda: nothing, {}))
    text = metrics.exposition().decode()
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


EXPOSED = exposed()


def selectors(expression: str) -> list[Any]:
    """Every selector of a PromQL expression; raises ValueError when it does not parse."""
    plain = expression.replace("$__rate_interval", "5m")
    found: list[Any] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(plain), visit)
    return found


def faults(expression: str) -> list[str]:
    """Series that an expression asks for and that no gateway will ever show."""
    found = []
    for selector in selectors(expression):
        if selector.name in MADE_BY_PROMETHEUS:
            continue
        series = EXPOSED.get(selector.name)
        if series is None:
            found.append(f"no metric {selector.name}")
            continue
        for matcher in selector.matchers.matchers:
            values = {labels.get(matcher.name) for labels in series}
            if matcher.name in SET_BY_PROMETHEUS:
                continue
            if values == {None}:
                found.append(f"{selector.name} has no label {matcher.name}")
            elif matcher.value not in values:
                found.append(f"{selector.name} has no {matcher.name}={matcher.value}")
    return found


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_a_rule_parses_and_asks_for_what_exists(alert: str) -> None:
    assert selectors(ALERTS[alert]["expr"])
    assert faults(ALERTS[alert]["expr"]) == []


@pytest.mark.parametrize(("title", "expression"), TARGETS)
def test_a_panel_parses_and_asks_for_what_exists(title: str, expression: str) -> None:
    assert selectors(expression), title
    assert faults(expression) == []


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("flexway_nothing > 0", "no metric flexway_nothing"),
        ("rate(flexway_orders[5m])", "no metric flexway_orders"),
        ('flexway_ready{protocol="mqtt"}', "flexway_ready has no label protocol"),
        ('flexway_adapter_up{protocol="matt"}', "flexway_adapter_up has no protocol=matt"),
    ],
)
def test_a_series_that_nobody_shows_is_caught(expression: str, fault: str) -> None:
    assert faults(expression) == [fault]


def test_an_expression_that_is_no_promql_is_caught() -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        selectors("sum(flexway_ready")


@pytest.mark.parametrize(("alert", "metric"), sorted(WANTED.items()))
def test_what_must_be_watched_is_watched(alert: str, metric: str) -> None:
    assert metric in {selector.name for selector in selectors(ALERTS[alert]["expr"])}


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_a_rule_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description"}
    assert len(rule["annotations"]["description"].split()) >= 10
    if "for" in rule:
        assert promql_parser.parse_duration(rule["for"]).total_seconds() > 0
    templates = re.findall(r"{{(.*?)}}", json.dumps(rule["annotations"]))
    assert all(re.fullmatch(r" \$(value( \| \w+)?|labels\.\w+) ", each) for each in templates)


def test_no_two_rules_share_a_name() -> None:
    names = [rule["alert"] for group in RULES["groups"] for rule in group["rules"]]
    assert len(names) == len(set(names))


def test_what_is_explained_exists() -> None:
    named = set(re.findall(r"`(Flexway[A-Z]\w+|flexway_\w+|process_\w+)`", MONITORING))
    per_device = {name for name in named if name.startswith("flexway_device_")}
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in EXPOSED}
    assert named - per_device <= families | set(ALERTS)


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_a_rule_is_explained(alert: str) -> None:
    assert f"`{alert}`" in MONITORING


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            re.sub("_(bucket|count|sum)$", "", name)
            for name in EXPOSED
            if name.startswith("flexway_") and not name.endswith("_created")
        }
    ),
)
def test_a_metric_is_explained(name: str) -> None:
    assert f"`{name}`" in MONITORING


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["schemaVersion"] >= 39  # Grafana 11
    assert DASHBOARD["uid"]
    assert "id" not in DASHBOARD
    assert "__inputs" not in DASHBOARD
    assert len(PANELS) >= 20
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_the_dashboard_asks_no_foreign_host() -> None:
    assert "://" not in json.dumps(DASHBOARD)


def test_no_panel_covers_another() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        for cell in cells(panel["gridPos"]):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]
    assert {x for x, _ in taken} == set(range(24))


def cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y


def test_the_variables_of_the_dashboard_exist() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert {name for name in used if not name.startswith("__")} <= variables
    (query,) = (v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query")
    metric = re.fullmatch(r"label_values\((\w+), \w+\)", query)
    assert metric is not None
    assert metric[1] in EXPOSED
