"""Modbus settings that make no sense are refused, each with its key and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.modbus.lines import Line, SerialPort
from adapters.modbus.reads import Span
from config.findings import Finding, Severity
from config.loading import load_settings, read_settings
from config.modbus import unfit_modbus
from gateway.bindings import modbus_endpoints
from marketplace_core.dispatch.profile import LeaseRefresh
from marketplace_core.errors import ConfigError

LAB = "lab = true\n"
DEVICE = """\
[[modbus.devices]]
device_id = "{name}"
organisation = "org_s"
role = "battery"
serial = "SN1"
{keys}
[modbus.devices.profile]
min_kw = -5
max_kw = 5
lease = "revert_timer"
lease_s = 600
telemetry_s = 5
{profile}
"""
TCP = 'host = "192.0.2.1"\n'
RTU = 'transport = "rtu"\nserial_line = { port = "/dev/ttyUSB0" }\n'


def text(keys: str = TCP, profile: str = "", name: str = "bat-1") -> str:
    return DEVICE.format(name=name, keys=keys, profile=profile)


def findings(folder: Path, *devices: str) -> list[Finding]:
    path = folder / "f.toml"
    path.write_text(LAB + "".join(devices))
    settings = read_settings(path, {}).settings
    assert settings is not None
    return list(unfit_modbus(settings))


@pytest.mark.parametrize(
    ("keys", "profile", "key", "says"),
    [
        ("", "", "transport", "without host"),
        ('transport = "rtu_over_tcp"', "", "transport", "without host"),
        ('transport = "rtu"', "", "transport", "without serial_line"),
        (RTU + TCP, "", "host", "a serial line has no host"),
        (TCP + 'serial_line = { port = "/dev/x" }', "", "serial_line", "has no serial_line"),
        (RTU + "unit = 0", "", "unit", "broadcast"),
        (TCP + 'transport = "rtu_over_tcp"\nunit = 0', "", "unit", "broadcast"),
        (TCP + "unreadable = [[9, 3]]", "", "unreadable", "9 to 3 is no range"),
        (TCP + 'sharing = "release"\nrelease_after_s = 4', "", "release_after_s", "never free"),
        (TCP, "step_kw = 6", "profile.step_kw", "more than the device can do"),
        (TCP, "writes_per_day = 6", "profile.writes_per_day", "not one setpoint"),
        (TCP, "write_every_s = 301", "profile.write_every_s", "hold that back"),
        (TCP, "longest_lease_s = 900", "profile.longest_lease_s", "without refresh = 'long'"),
        (TCP, 'refresh = "long"\nlongest_lease_s = 300', "profile.longest_lease_s", "shorter than"),
    ],
)
def test_what_makes_no_sense_is_an_error(
    tmp_path: Path, keys: str, profile: str, key: str, says: str
) -> None:
    found = findings(tmp_path, text(keys, profile))
    assert [finding.key for finding in found] == [f"modbus.devices.0.{key}"]
    assert says in found[0].message
    assert found[0].severity is Severity.ERROR
    assert found[0].remedy


def test_a_long_lease_needs_a_timer_in_the_device(tmp_path: Path) -> None:
    device = text(profile='refresh = "long"').replace("revert_timer", "watchdog")
    found = findings(tmp_path, device)
    assert [finding.key for finding in found] == ["modbus.devices.0.profile.refresh"]


def test_renewals_that_would_use_up_the_budget_are_a_warning(tmp_path: Path) -> None:
    found = findings(tmp_path, text(profile="writes_per_day = 100"))
    assert [finding.severity for finding in found] == [Severity.WARNING]
    assert "takes 288 writes" in found[0].message
    assert findings(tmp_path, text(profile='writes_per_day = 100\nrefresh = "long"')) == []


@pytest.mark.parametrize(
    ("one", "other", "key"),
    [
        (RTU, RTU.replace("}", ", baudrate = 9600 }"), "serial_line"),
        (TCP, TCP + 'transport = "rtu_over_tcp"', "transport"),
        (TCP, TCP + 'sharing = "release"', "sharing"),
        (TCP, TCP + "gap_s = 2.0", "gap_s"),
    ],
)
def test_units_on_one_line_have_to_agree_on_it(
    tmp_path: Path, one: str, other: str, key: str
) -> None:
    found = findings(tmp_path, text(one), text(other + "\nunit = 2", name="bat-2"))
    assert [finding.key for finding in found] == [f"modbus.devices.1.{key}"]
    assert "bat-2 and bat-1" in found[0].message


def test_what_fits_is_let_through_and_reaches_the_adapter(tmp_path: Path) -> None:
    shared = 'sharing = "release"\nrelease_after_s = 1.5\ngap_s = 0.5\n'
    serial = RTU.replace("}", ', baudrate = 9600, parity = "none", stopbits = 2 }')
    keys = serial + shared + "unreadable = [[100, 109]]\nmax_registers = 60\nslow_s = 300\n"
    profile = 'refresh = "long"\nlongest_lease_s = 7200\nwrites_per_day = 50\nstep_kw = 0.1\n'
    path = tmp_path / "f.toml"
    path.write_text(LAB + text(keys, profile))
    endpoint = modbus_endpoints(load_settings(path))[0]
    port = SerialPort(device="/dev/ttyUSB0", baudrate=9600, parity="none", stopbits=2)
    assert endpoint.on() == Line(
        transport="rtu", serial=port, sharing="release", release_after_s=1.5, gap_s=0.5
    )
    assert endpoint.reads.forbidden == (Span(100, 110),)
    assert (endpoint.reads.max_registers, endpoint.slow_s) == (60, 300.0)
    assert endpoint.profile.refresh is LeaseRefresh.LONG
    assert (endpoint.profile.longest_lease_s, endpoint.profile.writes_per_day) == (7200.0, 50)
    assert endpoint.profile.step_kw == 0.1


def test_limits_that_nobody_keeps_are_refused_for_other_protocols(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text(
        LAB + '[[mqtt.devices]]\ndevice_id = "ev-1"\norganisation = "org_s"\n'
        "[mqtt.devices.profile]\nmin_kw = -7\nmax_kw = 0\nlease = 'time_to_live'\nlease_s = 600\n"
        "writes_per_day = 20\n"
    )
    with pytest.raises(ConfigError, match="writes_per_day is kept for Modbus devices only"):
        load_settings(path)
