"""Scenario files: what is shipped works; each mistake is named with its line and a remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from firmware_sim.__main__ import simulator
from firmware_sim.fleet.population import populate
from firmware_sim.fleet.scenario import Selector, bounds, json_schema, seconds
from firmware_sim.fleet.scenario_file import KINDS, ScenarioError, parse_scenario, read_scenario
from firmware_sim.fleet.timeline import Timeline, select
from tests.harness.fleets import scenario

ROOT = Path(__file__).parents[4]
SHIPPED = sorted((ROOT / "firmware_sim/scenarios").glob("*.yaml"))
SPANS = "write 90, '90s', '1.5m' or '200ms'"
TABLE = "see the table in docs/simulator.md"
KEYS_OF_A_REBOOT = "known keys: at, devices, down, fault, forgets_readings"
DOCS = (ROOT / "docs/simulator.md").read_text(encoding="utf-8")


def mistakes(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as raised:
        parse_scenario(text.encode(), "s.yaml")
    return raised.value.findings


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.stem))
def test_what_is_shipped_can_be_played(path: Path) -> None:
    found = read_scenario(path)
    assert found.name == path.stem
    assert found.description
    fleets = [populate("mqtt", 500, seed=1), populate("modbus", 500, seed=1)]
    timelines = [Timeline(found, fleet, seed=1) for fleet in fleets]
    for number in range(len(found.timeline)):
        assert any(len(timeline.events[number].devices) for timeline in timelines)


def test_the_shipped_ones_have_every_fault() -> None:
    used = {entry.kind for path in SHIPPED for entry in read_scenario(path).timeline}
    assert used == set(KINDS)


def test_every_mistake_is_named_with_its_line_and_a_remedy() -> None:
    found = mistakes("""\
name: broken
timeline:
  - fault: drop
    at: 10
    until: 5
  - fault: dealy
    at: 10
  - fault: delay
    at: 10
    until: 20
    bye: 3
  - fault: clamp
    at: 1 fortnight
    until: 20
  - fault: stick
    at: 1
    until: 2
    devices:
      share: 2
  - fault: reboot
    at: 1
    until: 2
  - at: 3
  - 7
colour: red
""")
    assert found == [
        "s.yaml:5: timeline.0.until: it ends before it begins; give a later `until`",
        "s.yaml:6: timeline.1.fault: there is no fault 'dealy'; did you mean 'delay'?",
        "s.yaml:8: timeline.2.by: this key is missing; see the table in docs/simulator.md",
        "s.yaml:11: timeline.2.bye: there is no such key; did you mean 'by'?",
        f"s.yaml:13: timeline.3.at: '1 fortnight' is no span of time; {SPANS}",
        "s.yaml:19: timeline.4.devices.share: Expected `float` <= 1.0; " + TABLE,
        f"s.yaml:22: timeline.5.until: there is no such key; {KEYS_OF_A_REBOOT}",
        "s.yaml:23: timeline.6.fault: `fault` is missing; " + found[7].partition("; ")[2],
        "s.yaml:24: timeline.7: a fault is needed here; write `- fault: drop`",
        "s.yaml:25: colour: there is no such key; " + found[9].partition("; ")[2],
    ]  # fmt: skip
    assert "known faults: clamp, clock_skew, delay" in found[7]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "s.yaml:1: not YAML"),
        ("name: a\nname: b\n", "s.yaml:2: name: this key stands twice; keep one of them"),
        ("a: &a [1]\nname: *a\n", "s.yaml: aliases"),
        ("- 1\n", "Expected `object`, got `array`"),
        ("", "Expected `object`, got `null`"),
        ("name: x\ntimeline: 3\n", "s.yaml:2: timeline: a list is needed"),
        ("name: x\ntimeline:\n - {fault: drop, at: 1, until: 2, devices: {share: 0.1, count: 3}}",
         "s.yaml:3: timeline.0.devices: share and count together; keep one of them"),
        ("name: x\ntimeline:\n - {fault: drop, at: -1, until: 2}", "not within 0 and a year"),
        ("name: x\ntimeline:\n - {fault: drop, at: .nan, until: 2}", "not within 0 and a year"),
        ("name: x\ntimeline:\n - {fault: drop, at: 1, until: 2, devices: some}", "devices"),
        ("name: x\ntimeline:\n - {fault: drop, at: 1, until: 2, devices: {pre: x}}",
         "s.yaml:3: timeline.0.devices.pre: there is no such key; did you mean 'prefix'?"),
        ("name: " + "x" * 1_000_001, "allowed"),
        ("name: !!python/object:os.system x\n", "not YAML"),
        ("name: \x00\n", "not YAML"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_clear_line(text: str, said: str) -> None:
    found = mistakes(text)
    assert len(found) == 1
    assert said in found[0]


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file or directory; name a file"):
        read_scenario(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("span", "expected"),
    [(90, 90.0), (1.5, 1.5), ("90", 90.0), ("1.5m", 90.0), ("200ms", 0.2), ("2h", 7200.0),
     ("3 s", 3.0)],
)  # fmt: skip
def test_spans_of_time(span: float | str, expected: float) -> None:
    assert seconds(span) == pytest.approx(expected)


def test_devices_are_chosen_by_protocol_prefix_id_share_and_count() -> None:
    fleet = populate("mqtt", 400, seed=7)

    def chosen(selector: str, seed: int = 7) -> list[str]:
        one = scenario(f"fault: reconnect_storm, at: 1, devices: {selector}").timeline[0]
        return [fleet.ids[n] for n in select(one, 0, "test", fleet, seed)]

    assert chosen("all") == list(fleet.ids)
    assert chosen("{protocol: modbus}") == []
    assert chosen("{prefix: mq-ev-}") == [name for name in fleet.ids if "-ev-" in name]
    assert chosen(f"{{ids: [{fleet.ids[3]}, {fleet.ids[9]}, other]}}") == [
        fleet.ids[3], fleet.ids[9],
    ]  # fmt: skip
    assert chosen(f"{{prefix: mq-ev-, without: [{fleet.ids[4]}]}}") == [
        name for name in fleet.ids if "-ev-" in name and name != fleet.ids[4]
    ]
    tenth = chosen("{share: 0.1}")
    assert len(tenth) == 40
    assert tenth == chosen("{share: 0.1}")
    assert tenth != chosen("{share: 0.1}", seed=8)
    cars = chosen("{prefix: mq-ev-, count: 5}")
    assert len(cars) == 5
    assert all("-ev-" in name for name in cars)


def test_the_timeline_says_what_begins_and_ends() -> None:
    fleet = populate("mqtt", 10, seed=7)
    timeline = Timeline(
        scenario("fault: drop, at: 5, until: 8", "fault: reconnect_storm, at: 6"), fleet, seed=7
    )
    seen = []
    for at in range(10):
        began, changed, active = timeline.advance(float(at))
        if changed:
            seen.append((at, [e.entry.kind for e in began], [e.entry.kind for e in active]))
    assert seen == [(5, ["drop"], ["drop"]), (6, ["reconnect_storm"], ["drop"]), (8, [], [])]


def test_dry_run_prints_the_timeline_and_starts_nothing() -> None:
    path = str(ROOT / "firmware_sim/scenarios/bad_afternoon.yaml")
    for protocol, option in (("mqtt", "--devices"), ("modbus", "--units")):
        done = CliRunner().invoke(
            simulator,
            ["fleet", protocol, option, "200", "--seed", "7", "--scenario", path, "--dry-run"],
        )
        assert done.exit_code == 0, done.output
        rows = done.output.splitlines()
        assert len(rows) == 11
        assert re.match(rf"60 s to 180 s  drop \(share 0\.5\)  10 of 200 {protocol} ", rows[0])
        assert "420 s  reboot (down 20s, forgets_readings False)  20 of 200" in rows[9]


def test_a_wrong_file_ends_the_command_with_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: x\ntimeline:\n  - {fault: drop, at: 1}\n")
    done = CliRunner().invoke(simulator, ["fleet", "play", "--scenario", str(path)])
    assert isinstance(done.exception, ScenarioError)
    assert str(done.exception).startswith(f"{path}:3: timeline.0.until: this key is missing")


def test_the_schema_and_the_documentation_know_every_fault_and_key() -> None:
    schema = json_schema()
    done = CliRunner().invoke(simulator, ["fleet", "schema"])
    assert json.loads(done.output) == json.loads(json.dumps(schema))
    assert set(schema["$defs"]) >= {form.__name__ for form in KINDS.values()}
    table = DOCS.partition("### Scenario files")[2].partition("\n### ")[0]
    for kind, form in KINDS.items():
        row = next(line for line in table.splitlines() if line.startswith(f"| `{kind}` |"))
        for name in set(form.__struct_fields__) - {"at", "until", "devices"}:
            assert f"`{name}`" in row, (kind, name)
        assert ("until" in form.__struct_fields__) == (" lasts " in row), kind
    for name in Selector.__struct_fields__:
        assert f"`{name}`" in table


def test_the_example_in_the_documentation_can_be_played() -> None:
    section = DOCS.partition("### Scenario files")[2]
    block = section.partition("```yaml\n")[2].partition("```")[0]
    found = parse_scenario(block.encode(), "docs/simulator.md")
    assert len(found.timeline) >= 2
    assert bounds(found.timeline[0])[1] > 0
    assert yaml.safe_load(block)["name"] == found.name
