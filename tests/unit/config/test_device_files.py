"""What settings say of a device has to fit the profile that they name for it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from config.device_files import device_profile_findings
from config.findings import Finding, Severity
from config.loading import read_settings
from gateway.bindings import modbus_endpoints
from marketplace_core.errors import ConfigError

DEVICE = """\
lab = true
[[modbus.devices]]
device_id = "bat-1"
host = "192.0.2.1"
role = "{role}"
device_profile = "{profile}"
{keys}
[modbus.devices.profile]
min_kw = {low}
max_kw = {high}
telemetry_s = 5
{more}
"""
SUNGROW = {"role": "battery", "profile": "sungrow-sh", "low": -5, "high": 5,
           "keys": 'serial = "A1"', "more": 'lease = "revert_timer"\nlease_s = 600'}  # fmt: skip
GO_E = {"role": "charger", "profile": "go-e-charger", "low": -11, "high": 0,
        "keys": 'serial = "1"', "more": 'control = "limit"\nlease = "watchdog"\nlease_s = 60\n'
        "min_on_kw = 4.14"}  # fmt: skip


def loaded(folder: Path, **fields: Any) -> Any:
    path = folder / "f.toml"
    path.write_text(DEVICE.format(**fields))
    found = read_settings(path, {})
    assert found.settings is not None, found.findings
    return found


def findings(folder: Path, **fields: Any) -> list[Finding]:
    """All but that no shipped profile was run on its hardware."""
    found = loaded(folder, **fields)
    told = [*found.findings, *device_profile_findings(found.settings)]
    return [f for f in told if "never run on the hardware" not in f.message]


@pytest.mark.parametrize("fields", [SUNGROW, GO_E])
def test_settings_that_fit_have_no_findings(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert findings(tmp_path, **fields) == []


def test_a_profile_that_was_never_run_on_hardware_is_a_warning(tmp_path: Path) -> None:
    (found,) = device_profile_findings(loaded(tmp_path, **SUNGROW).settings)
    assert found.severity is Severity.WARNING
    assert "never run on the hardware" in found.message


@pytest.mark.parametrize(
    ("fields", "key", "told"),
    [
        ({**SUNGROW, "profile": "sungrow"}, "device_profile", "sungrow-sh"),
        ({**SUNGROW, "profile": "./none.yaml"}, "device_profile", "no such file"),
        ({**SUNGROW, "role": "inverter"}, "role", "'battery'"),
        ({**SUNGROW, "keys": 'serial = "A1"\nprofile_control = "external"'}, "profile_control",
         "external_ems"),
        ({**SUNGROW, "keys": 'serial = "A1"\ncontrol = "wset"'}, "control", "device profile says"),
        ({**SUNGROW, "more": 'control = "limit"\nlease = "watchdog"\nlease_s = 60'},
         "profile.control", "control = 'setpoint'"),
        ({**SUNGROW, "more": 'lease = "revert_timer"\nlease_s = 1800'}, "profile.lease_s", "1000"),
        ({**SUNGROW, "more": 'lease = "heartbeat"\nlease_s = 60\nfallback_kw = 0'},
         "profile.lease", "revert_timer"),
        ({**SUNGROW, "more": 'lease = "revert_timer"\nlease_s = 60\nfallback_kw = 0'},
         "profile.fallback_kw", "own behaviour"),
        ({**SUNGROW, "keys": ""}, "", "has no serial"),
        ({**GO_E, "more": 'control = "limit"\nlease = "revert_timer"\nlease_s = 60\nmin_on_kw = 5'},
         "profile.lease", "watchdog"),
        ({**GO_E, "low": -30}, "profile", "32 A on 3 phases, 22.080 kW"),
        ({**GO_E, "more": 'control = "limit"\nlease = "watchdog"\nlease_s = 60'},
         "profile.min_on_kw", "min_on_kw = 4.14"),
        ({**SUNGROW, "more": 'lease = "revert_timer"\nlease_s = 8'}, "profile.lease_s",
         "each 5 s at most"),
        ({**SUNGROW, "more": 'lease = "revert_timer"\nlease_s = 15'}, "profile.lease_s",
         "takes 11520 writes"),
        ({**GO_E, "profile": "keba-p30"}, "device_profile", "only read"),
        ({**SUNGROW, "role": "meter", "profile": "eastron-sdm72d-m", "keys": 'serial = "A1"',
          "more": ""}, "serial", "cannot be checked"),
        ({**SUNGROW, "keys": 'serial = "A1"\ntransport = "rtu_over_tcp"\nunit = 255'}, "unit",
         "1 to 247"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_key(
    tmp_path: Path, fields: dict[str, Any], key: str, told: str
) -> None:
    found = findings(tmp_path, **fields)
    matching = [f for f in found if f.key == f"modbus.devices.0.{key}".rstrip(".")]
    assert matching, found
    assert any(told in f"{f.message}; {f.remedy}" for f in matching), matching


@pytest.mark.parametrize("keys", ["phases = 1", 'profile_control = "x"'])
def test_keys_of_a_profile_need_one(tmp_path: Path, keys: str) -> None:
    (found,) = findings(tmp_path, **{**SUNGROW, "profile": "", "keys": f'serial = "A1"\n{keys}'})
    assert found.key.endswith(keys.split(" ", 1)[0])


def test_a_charger_needs_a_profile(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, **{**GO_E, "profile": ""})
    assert found.key == "modbus.devices.0.role"


def test_a_file_counts_from_the_settings_folder_and_its_errors_keep_their_line(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.yaml").write_text("title: Mine\nroel: battery\n")
    found = loaded(tmp_path, **{**SUNGROW, "profile": "./mine.yaml"})
    told = list(device_profile_findings(found.settings))
    assert any("mine.yaml:2: roel: unknown key" in f.message for f in told), told
    with pytest.raises(ConfigError, match=r"mine\.yaml:2: roel"):
        modbus_endpoints(found.settings)


def test_a_charger_that_cannot_be_stopped_is_not_planned_at_nothing(tmp_path: Path) -> None:
    text = (files("config") / "device_profiles" / "go-e-charger.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text.replace(", idle: 1", ""))
    (found,) = findings(tmp_path, **{**GO_E, "profile": "./mine.yaml"})
    assert (found.severity, found.remedy.split(":")[0]) == (Severity.WARNING, "max_kw = -4.14")


def test_the_narrower_of_settings_and_profile_counts(tmp_path: Path) -> None:
    more = SUNGROW["more"] + "\nwrites_per_day = 50\nwrite_every_s = 2"
    found = loaded(tmp_path, **{**SUNGROW, "more": more, "keys": "max_registers = 20"})
    (endpoint,) = modbus_endpoints(found.settings)
    assert endpoint.device is not None
    assert endpoint.device.points["battery_power"].word_order == "little"
    assert (endpoint.reads.max_registers, endpoint.reads.max_gap) == (20, 20)
    assert (endpoint.profile.writes_per_day, endpoint.profile.write_every_s) == (50, 5)
    plain = loaded(tmp_path, **{**GO_E, "keys": ""})
    (endpoint,) = modbus_endpoints(plain.settings)
    assert endpoint.profile.writes_per_day == 27
