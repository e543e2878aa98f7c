"""Device profiles are checked as a whole: every finding at once, with line, key and remedy."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
import yaml

from adapters.modbus.registers import definition
from config.findings import Finding
from config.profile_model import ProfileDocument
from config.profile_rules import referred
from config.profile_schema import schema
from config.profiles import check_profile, read_profile, shipped
from config.schema import inner_model
from gateway.register_maps import register_map
from marketplace_core.errors import ConfigError

GOOD = """\
title: A battery
manufacturer: Somebody
models: [B1]
role: battery
verified: false
documents:
  manual: {title: Manual, revision: "1", where: here, origin: manufacturer}
flash_wear: {writes_per_day: 100, why: page 1}
points:
  power: {address: 0, type: int16, unit: W, cite: p. 1}
  soc: {address: 1, type: uint16, scale: 0.1, unit: "%", cite: p. 1}
  serial: {address: 2, type: string, length: 4, cite: p. 1}
  rated: {address: 6, type: uint16, unit: kW, cite: p. 1}
  timer: {address: 10, type: uint16, unit: s, access: read_write, cite: p. 2}
  target: {address: 11, type: int16, unit: W, access: read_write, cite: p. 2}
  mode: {address: 12, type: enum16, access: read_write, cite: p. 2, meanings: {0xA: "on", 0: "off"}}
identity: {serial: serial}
measurements:
  power: {points: [power], meter_sign: 1}
  soc: soc
controls:
  target:
    kind: setpoint
    cite: p. 2
    value: {point: target}
    enable: {point: mode, active: 10, released: 0}
    lease: {kind: timer, point: timer, longest_s: 600}
    lease_restarts_on: timer
    fallback: own_behaviour
"""


def findings(text: str) -> list[Finding]:
    return list(check_profile("mine", "mine.yaml", text).findings)


def test_a_good_profile_has_no_findings() -> None:
    assert findings(GOOD) == []
    assert check_profile("mine", "mine.yaml", GOOD).required().points["mode"].meanings[10] == "on"


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_profile_is_flawless_unverified_and_cites_each_point(name: str) -> None:
    loaded = read_profile(name)
    assert loaded.findings == ()
    document = loaded.required()
    assert not document.verified
    assert all(point.cite.strip() for point in document.points.values())
    assert all(control.cite.strip() for control in document.controls.values())
    assert {name for _, name in referred(document)} <= document.points.keys()


@pytest.mark.parametrize(
    ("old", "new", "key", "line", "told"),
    [
        ("role: battery", "rolle: battery", "rolle", 4, "did you mean 'role'?"),
        ("address: 0,", "adress: 0,", "points.power.adress", 10, "did you mean 'address'?"),
        ("address: 0,", "address: 65536,", "points.power.address", 10, "at most 65535"),
        ("address: 0,", "address: 65535.5,", "points.power.address", 10, "integer"),
        ("type: int16, unit: W, cite: p. 1", "type: int15, unit: W, cite: p. 1",
         "points.power.type", 10, "'int16'"),
        (", cite: p. 1}\n  soc", "}\n  soc", "points.power.cite", 10, "add it here"),
        ("length: 4", "length: 0", "points.serial.length", 12, "two characters each"),
        ("address: 6, type: uint16", "address: 6, length: 2, type: uint16", "points.rated.length",
         13, "has 1 registers, not 2"),
        ("address: 6, type: uint16", "address: 65535, type: uint32", "points.rated.address",
         13, "beyond the last register"),
        ("address: 6,", "document: manuel, address: 6,", "points.rated.document", 13, "'manual'"),
        ("points: [power]", "points: [pover]", "measurements.power.points.0", 19, "'power'"),
        ("points: [power]", "points: [soc]", "measurements.power.points.0", 19, "W or kW"),
        ("  soc: soc\n", "  soc: power\n", "measurements.soc", 20, "number in %"),
        ("flash_wear: {writes_per_day: 100, why: page 1}\n", "", "controls", 20, "flash_wear"),
        ("role: battery", "role: meter", "controls", 21, "a meter is not driven"),
        ("access: read_write, cite: p. 2}\n  mode", "cite: p. 2}\n  mode",
         "controls.target.value.point", 25, "holding register with access: read_write"),
        ("value: {point: target}", "value: {point: target, volts: 230}",
         "controls.target.value.volts", 25, "volts with a point in W"),
        ("value: {point: target}", "value: {point: target, full: rated}",
         "controls.target.value.full", 25, "full with a point in W"),
        ("value: {point: target}", "value: {point: target, magnitude: true}",
         "controls.target.value.magnitude", 25, "go together"),
        ("value: {point: target}", "value: {point: target, least: 5, most: 2}",
         "controls.target.value.least", 25, "5 is above 2"),
        ("lease: {kind: timer, point: timer,", "lease: {kind: timer,",
         "controls.target.lease.point", 27, "without a point"),
        (", longest_s: 600", "", "controls.target.lease.longest_s", 27, "without longest_s"),
        ("unit: s,", 'unit: "%",', "controls.target.lease.point", 27, "give the point unit: s"),
        ("    lease_restarts_on: timer\n", "", "controls.target.lease_restarts_on", 22,
         "timer, value, enable"),
        ("lease: {kind: timer, point: timer,", "lease: {kind: fixed,",
         "controls.target.lease_restarts_on", 28, "value, enable"),
        ("lease: {kind: timer, point: timer, longest_s: 600}\n    lease_restarts_on: timer\n",
         "lease: {kind: heartbeat, point: timer, every_s: 400, longest_s: 600}\n",
         "controls.target.lease.point", 27, "kept_in: ram"),
        ("lease: {kind: timer, point: timer, longest_s: 600}\n    lease_restarts_on: timer\n",
         "lease: {kind: heartbeat, point: timer, every_s: 400, longest_s: 600}\n",
         "controls.target.lease.every_s", 27, "half that time"),
        ("lease: {kind: timer", "lease: {kind: heartbeat", "controls.target.lease_restarts_on",
         28, "no write restarts it"),
        ("fallback: own_behaviour", "fallback: keeps", "controls.target.fallback", 29, "`none`"),
        ("    enable: {point: mode, active: 10, released: 0}\n", "", "controls.target", 22,
         "nothing ends it"),
        ("    fallback: own", "    release: [{point: target}]\n    fallback: own",
         "controls.target.release.0", 29, "give one of the two"),
        ("title: A battery", "title: A battery\nmax_registers: 3", "points.serial.length", 13,
         "do not come in one read of 3"),
        ("title: A battery", "title: A battery\nunreadable: [[0, 0]]", "points.power.address", 11,
         "unreadable"),
        ("title: A battery", "title: A battery\nunreadable: [[9, 8]]", "unreadable.0", 2,
         "no range"),
        ("title: A battery", "title: A battery\nwrite_function: 6\ntitle: B", "title", 3, "twice"),
        ("{serial: serial}", "{expect: [{point: serial, values: [1]}]}",
         "identity.expect.0.point", 17, "is a string"),
        ("models: [B1]", "models: &m [B1]\nnote: *m", "note", 4, "anchors"),
        ("models: [B1]", "models: [2026-01-01]", "models.0", 3, "quote it"),
        ("models: [B1]", "models: [B1", "", 4, "not YAML"),
        ("{point: mode, active", "{point: rated, active", "controls.target.enable.point", 26,
         "holding register with access"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_line_key_and_remedy(
    old: str, new: str, key: str, line: int, told: str
) -> None:
    assert old in GOOD
    loaded = check_profile("mine", "mine.yaml", GOOD.replace(old, new, 1))
    found = [f for f in loaded.findings if f.key == key]
    assert found, [loaded.sources.explain(f) for f in loaded.findings]
    texts = [loaded.sources.explain(f) for f in found]
    assert any(told in text for text in texts), texts
    assert {loaded.sources.line_of(f.location) for f in found} == {line}
    assert texts[0].startswith(f"mine.yaml:{line}: ")
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        loaded.required()


def test_everything_wrong_is_told_at_once() -> None:
    text = GOOD.replace("address: 0,", "adress: 0,").replace("role: battery", "role: fridge")
    keys = {f.key for f in findings(text.replace("kind: setpoint", "kind: set"))}
    assert {"points.power.adress", "points.power.address", "role", "controls.target.kind"} <= keys


def test_function_6_writes_no_value_of_two_registers() -> None:
    text = GOOD.replace("role: battery", "role: battery\nwrite_function: 6")
    assert findings(text) == []
    wide = text.replace("target: {address: 11, type: int16", "target: {address: 20, type: int32")
    assert any("takes more than function 6 writes" in f.message for f in findings(wide))


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "just words", "{[: }", "[" * 5000, "a: !!python/x b"]
)
def test_a_text_that_is_no_profile_says_so(text: str) -> None:
    loaded = check_profile("mine", "mine.yaml", text)
    assert loaded.profile is None
    assert loaded.errors
    assert all(finding.remedy for finding in loaded.errors)


def test_a_name_that_is_not_shipped_gets_the_nearest(tmp_path: Path) -> None:
    (found,) = read_profile("sungrow").findings
    assert "sungrow-sh" in found.remedy
    (missing,) = read_profile(str(tmp_path / "none.yaml")).findings
    assert missing.message == "no such file"
    (tmp_path / "latin.yaml").write_bytes(b"title: \xff\xfe")
    (unreadable,) = read_profile(str(tmp_path / "latin.yaml")).findings
    assert "UTF-8" in unreadable.remedy


def test_the_schema_is_the_models() -> None:
    """`python -m config.profile_schema > config/device_profiles/schema.json`."""
    kept = (files("config") / "device_profiles" / "schema.json").read_text(encoding="utf-8")
    assert kept == schema()
    known = set(json.loads(kept)["properties"])
    for name in shipped():
        text = (files("config") / "device_profiles" / f"{name}.yaml").read_text(encoding="utf-8")
        assert text.startswith("# yaml-language-server: $schema=schema.json\n")
        assert set(yaml.safe_load(text)) <= known


def test_the_adapter_takes_every_field_that_it_names_from_the_profile() -> None:
    """A field that one side renames would be left at its default without a word."""

    def compare(struct: type[Any], model: Any) -> None:
        for field in msgspec.structs.fields(struct):
            assert field.name in model.model_fields, (struct, field.name)
            inner = inner_model(model.model_fields[field.name].annotation)
            for hint in _structs(get_type_hints(struct)[field.name]):
                compare(hint, inner)

    compare(definition.RegisterMap, ProfileDocument)
    found = register_map(check_profile("mine", "mine.yaml", GOOD).required())
    assert found.controls["target"].lease == definition.Lease(
        kind="timer", point="timer", longest_s=600.0
    )


def _structs(hint: Any) -> list[type[Any]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    return [found for argument in get_args(hint) for found in _structs(argument)]


def test_the_example_of_the_documentation_is_flawless() -> None:
    text = (Path(__file__).parents[3] / "docs/modbus.md").read_text(encoding="utf-8")
    (example,) = (part.partition("```")[0] for part in text.split("```yaml\n")[1:])
    assert findings(example) == []
    for name in shipped():
        assert f"| `{name}` |" in text
