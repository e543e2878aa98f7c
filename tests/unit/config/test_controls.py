"""Controls of Modbus units that do not go with their profile are refused, with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.findings import Finding, Severity
from config.loading import read_settings
from gateway.bindings import modbus_endpoints

DEVICE = """\
[api]
tls_certificate = "c.pem"
tls_key = "k.pem"
[[modbus.devices]]
device_id = "dev-1"
organisation = "org_s"
host = "192.0.2.1"
role = "battery"
serial = "SN1"
{keys}
[modbus.devices.profile]
min_kw = -5
max_kw = 5
{profile}
"""
LEASE = 'lease = "revert_timer"\nlease_s = 600\n'
BEAT = 'lease = "heartbeat"\nlease_s = 600\n'


def findings(folder: Path, keys: str, profile: str = LEASE) -> list[Finding]:
    path = folder / "f.toml"
    path.write_text(DEVICE.format(keys=keys, profile=profile), encoding="utf-8")
    return list(read_settings(path, {}).findings)


@pytest.mark.parametrize(
    ("keys", "profile", "key", "message"),
    [
        ('control = "storage_124"', LEASE, "control", "holds no setpoint"),
        ("", BEAT, "profile.fallback_kw", "defines no fallback"),
        ("", 'lease = "heartbeat"\nfallback_kw = 0.0', "profile.lease_s", "without lease_s"),
        ('control = "wmaxlim"', LEASE, "control", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_is_an_error(
    tmp_path: Path, keys: str, profile: str, key: str, message: str
) -> None:
    (found,) = findings(tmp_path, keys, profile)
    assert found.severity is Severity.ERROR
    assert found.key == f"modbus.devices.0.{key}"
    assert message in found.message


@pytest.mark.parametrize(
    ("keys", "profile", "message"),
    [
        ('control = "wmaxlim_704"', LEASE, "drives no power up"),
        ('control = "wset"', LEASE + 'control = "limit"\n', "it is no limit"),
    ],
)
def test_what_is_only_unwise_is_a_warning(
    tmp_path: Path, keys: str, profile: str, message: str
) -> None:
    (found,) = findings(tmp_path, keys, profile)
    assert found.severity is Severity.WARNING
    assert message in found.message


def test_a_meter_is_not_driven(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    text = DEVICE.format(keys='control = "wset"', profile=LEASE).replace('"battery"', '"meter"')
    path.write_text(text, encoding="utf-8")
    (found,) = read_settings(path, {}).findings
    assert "is a meter" in found.message


def test_a_heartbeat_is_sunspec_s_only(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text(
        '[api]\ntls_certificate = "c.pem"\ntls_key = "k.pem"\n[mqtt]\nusername = "g"\n'
        'password_file = "p"\n[[mqtt.devices]]\ndevice_id = "ev-1"\norganisation = "org_s"\n'
        f"[mqtt.devices.profile]\nmin_kw = -7\nmax_kw = 0\n{BEAT}", encoding="utf-8",
    )  # fmt: skip
    (found,) = read_settings(path, {}).findings
    assert found.key == "mqtt.devices.0.profile.lease"


def test_the_keys_reach_the_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    keys = 'control = "storage_124"\nlease_restarts_on = "value"\nnegative_rates = true'
    path.write_text(DEVICE.format(keys=keys, profile=LEASE), encoding="utf-8")
    loaded = read_settings(path, {})
    assert list(loaded.findings) == []
    assert loaded.settings is not None
    (endpoint,) = modbus_endpoints(loaded.settings)
    assert (endpoint.control, endpoint.lease_restarts_on, endpoint.negative_rates) == (
        "storage_124", "value", True,
    )  # fmt: skip
