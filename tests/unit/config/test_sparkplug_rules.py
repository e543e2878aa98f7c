"""Settings of Sparkplug devices: refused on their line, and bound as they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.findings import Finding
from config.loading import load_settings, read_settings
from config.rules import devices_of
from gateway.bindings import mqtt_devices, sparkplug_devices

BESS = """\
[api]
tls_certificate = "c.pem"
tls_key = "k.pem"
[mqtt]
username = "gateway"
password_file = "p"
[[mqtt.devices]]
device_id = "bess-1"
organisation = "org_s"
dialect = "sparkplug"
group = "plant"
edge_node = "node-1"
sparkplug_device = "bess"
[mqtt.devices.metrics]
power = { metric = "Inverter/Power", scale = -0.001 }
setpoint = { metric = "Control/Setpoint", scale = -0.001 }
enable = { metric = "Control/Enable" }
lease = { metric = "Control/Lease" }
[mqtt.devices.profile]
min_kw = -5
max_kw = 5
lease = "time_to_live"
lease_s = 600
"""
DEVICE = "mqtt.devices.0"
LEASE = 'lease = { metric = "Control/Lease" }\n'
ENABLE = 'enable = { metric = "Control/Enable" }\n'
SETPOINT = 'setpoint = { metric = "Control/Setpoint", scale = -0.001 }\n'
POWER = 'power = { metric = "Inverter/Power", scale = -0.001 }\n'


def findings(folder: Path, text: str) -> list[Finding]:
    path = folder / "f.toml"
    path.write_text(text, encoding="utf-8")
    return list(read_settings(path, {}).findings)


def test_a_sparkplug_device_is_bound_as_its_settings_say(tmp_path: Path) -> None:
    assert findings(tmp_path, BESS) == []
    settings = load_settings(tmp_path / "f.toml", {})
    (device,) = sparkplug_devices(settings)
    assert mqtt_devices(settings) == []
    assert (device.group, device.edge_node, device.sparkplug_device) == ("plant", "node-1", "bess")
    assert device.metrics.keys() == {"power", "setpoint", "enable", "lease"}
    assert device.metrics["power"].scale == -0.001
    assert device.profile.protocol == "sparkplug"


def test_the_example_of_the_documentation_can_be_used(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "mqtt.md").read_text(encoding="utf-8")
    example = text.split("```toml\n")[1].split("```")[0]
    site = BESS[: BESS.index("[mqtt]")]
    assert [one.message for one in findings(tmp_path, site + example) if one.stops] == []
    settings = read_settings(tmp_path / "f.toml", {}).settings
    assert settings is not None
    (device,) = sparkplug_devices(settings)
    assert device.metrics.keys() >= {"soc", "available", "heartbeat"}


def test_a_meter_is_not_driven_and_needs_no_way_back(tmp_path: Path) -> None:
    meter = BESS.replace(SETPOINT, "").replace(LEASE, "").replace(ENABLE, "")
    assert findings(tmp_path, meter.replace("time_to_live", "none")) == []
    settings = load_settings(tmp_path / "f.toml", {})
    assert [bound.driven for bound in devices_of(settings)] == [False]


@pytest.mark.parametrize(
    ("before", "after", "place", "message"),
    [
        (LEASE, "", ".profile.lease", "needs a lease or heartbeat metric"),
        (ENABLE, "", ".metrics", "nothing ends a setpoint"),
        (POWER + SETPOINT, "", ".metrics", "neither power nor setpoint"),
        ("scale = -0.001", "scale = 0", ".metrics.power.scale", "0.0 is no scale"),
        ("scale = -0.001", "scale = nan", ".metrics.power.scale", "nan is no scale"),
        ('group = "plant"', "", ".group", "cannot stand in a topic"),
        ('"node-1"', '"node/1"', ".edge_node", "cannot stand in a topic"),
        ('"bess"', '"be+ss"', ".sparkplug_device", "cannot stand in a topic"),
        ('"time_to_live"', '"event_end"', ".profile.lease", "no events"),
        ('dialect = "sparkplug"', "", ".metrics", "means nothing to our own dialect"),
        ("power =", "powr =", ".metrics.powr", "unknown key"),
    ],
)
def test_what_does_not_go_together_is_found_where_it_stands(
    tmp_path: Path, before: str, after: str, place: str, message: str
) -> None:
    assert before in BESS
    found = findings(tmp_path, BESS.replace(before, after))
    assert (DEVICE + place) in [one.key for one in found]
    (named,) = [one for one in found if one.key == DEVICE + place]
    assert message in named.message
    assert named.stops
    assert named.remedy


def test_a_fallback_that_is_written_ends_a_setpoint_too(tmp_path: Path) -> None:
    text = BESS.replace(ENABLE, "").replace("max_kw = 5", "max_kw = 5\nfallback_kw = 0")
    assert findings(tmp_path, text) == []


def test_the_same_metrics_are_bound_once(tmp_path: Path) -> None:
    second = BESS[BESS.index("[[mqtt.devices]]") :].replace('"bess-1"', '"bess-2"')
    (found,) = findings(tmp_path, BESS + second)
    assert found.key == "mqtt.devices.1.sparkplug_device"
    assert "plant/node-1/bess is bess-1's as well" in found.message
