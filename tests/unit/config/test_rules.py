"""Settings that do not go together are refused, on their line, with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.findings import Finding, Severity
from config.loading import load_settings, read_settings
from marketplace_core.errors import ConfigError

SITE = '[api]\ntls_certificate = "c.pem"\ntls_key = "k.pem"\n'
BATTERY = """\
[[modbus.devices]]
device_id = "bat-1"
organisation = "org_s"
host = "192.0.2.1"
role = "battery"
serial = "SN1"
[modbus.devices.profile]
min_kw = -5
max_kw = 5
lease = "revert_timer"
lease_s = 600
"""
PROFILE = "modbus.devices.0.profile"
VEN = """\
[openadr]
tls_certificate = "c.pem"
tls_key = "k.pem"
ca_certificate = "ca.pem"
port = 8081
[[openadr.vens]]
device_id = "home-1"
organisation = "org_s"
ven_name = "home-1"
fingerprint = "00:11:22:33:44:55:66:77:88:99"
[openadr.vens.profile]
min_kw = -3
max_kw = 0
lease = "event_end"
"""
CHARGER = """\
[mqtt]
username = "gateway"
password_file = "p"
[[mqtt.devices]]
device_id = "ev-1"
organisation = "org_s"
[mqtt.devices.profile]
min_kw = -7
max_kw = 0
lease = "time_to_live"
lease_s = 600
"""


def findings(folder: Path, text: str) -> list[Finding]:
    path = folder / "f.toml"
    path.write_text(text, encoding="utf-8")
    return list(read_settings(path, {}).findings)


def test_a_whole_site_has_nothing_wrong_with_it(tmp_path: Path) -> None:
    assert findings(tmp_path, SITE + BATTERY + VEN + CHARGER) == []


@pytest.mark.parametrize(
    ("text", "before", "after", "place", "message"),
    [
        (BATTERY, "lease_s = 600", "", (PROFILE + ".lease_s", 10), "without lease_s"),
        (BATTERY, "lease_s = 600", "lease_s = 60", (PROFILE + ".lease_s", 14),
         "a lease of 60 s is not longer than the telemetry interval of 60 s"),
        (BATTERY, "min_kw = -5", "min_kw = 6", (PROFILE + ".min_kw", 11),
         "min_kw 6 is above max_kw 5"),
        (BATTERY, "max_kw = 5", "max_kw = 5\nfallback_kw = 9", (PROFILE + ".fallback_kw", 13),
         "9 kW is outside -5 to 5 kW"),
        (BATTERY, "max_kw = 5", "max_kw = 5\nmin_on_kw = 6", (PROFILE + ".min_on_kw", 13),
         "6 kW is more than the device can have: -5 to 5 kW"),
        (BATTERY, "[modbus.devices.profile]", "[modbus.devices.profile]\ntelemetry_s = 900",
         (PROFILE + ".lease_s", 15), "not longer than the telemetry interval"),
        (VEN + BATTERY, '"bat-1"', '"home-1"', ("openadr.vens.0.device_id", 10),
         "'home-1' is bound twice, here and at modbus.devices.0"),
        (BATTERY, 'organisation = "org_s"', "", ("modbus.devices.0.organisation", 4),
         "bat-1 belongs to nobody"),
        (VEN, 'organisation = "org_s"', "", ("openadr.vens.0.organisation", 9),
         "home-1 belongs to nobody"),
        (VEN, "port = 8081", "port = 8443", ("openadr.port", 8), "port 8443 is the API's as well"),
        (VEN, 'fingerprint = "00', '# "00', ("openadr.vens.0.fingerprint", 9),
         "has no fingerprint"),
        (VEN, 'ca_certificate = "ca.pem"', "", ("openadr", 4), "ca_certificate is missing"),
        (VEN, 'ven_name = "home-1"', 'ven_name = "1home"', ("openadr.vens.0.ven_name", 12),
         "should match pattern"),
        (CHARGER, '"org_s"', '"org/s"', ("mqtt.devices.0.organisation", 9),
         "cannot stand in a topic"),
        (CHARGER, '"ev-1"', '"ev+1"', ("mqtt.devices.0.device_id", 8), "cannot stand in a topic"),
        (CHARGER, 'password_file = "p"', "", ("mqtt.username", 5), "without password_file"),
        (CHARGER, 'username = "gateway"', 'client_key = "k"', ("mqtt.client_key", 5), "together"),
        (CHARGER, 'username = "gateway"', 'client_certificate = "c"',
         ("mqtt.client_certificate", 5), "go together"),
        (CHARGER, "[mqtt]", "[mqtt]\ntls = false", ("mqtt.tls", 5), "needs lab = true"),
        ("[time]\nspeed = 2", "", "", ("time.speed", 5), "simulated time needs lab = true"),
        ('[time]\nmarket_epoch = "2026-01-01T00:00:00Z"\nwall_epoch = 1', "", "",
         ("time.market_epoch", 5), "simulated time needs lab = true"),
        ('[market]\ntimezone = "Mars/North"', "", "", ("market.timezone", 5), "is no time zone"),
        ('[store]\ndatabase = "mysql://x/y"', "", "", ("store.database", 5),
         "'mysql' is no database"),
        ('[store]\ndatabase = "market.db"', "", "", ("store.database", 5), "is no database"),
        ('[store]\ndatabase = "postgresql://u:geheim@127.0.0.1/d"', "", "", ("store.database", 5),
         "it holds a password"),
    ],
)  # fmt: skip
def test_a_contradiction_is_found_on_its_line(  # noqa: PLR0917
    tmp_path: Path, text: str, before: str, after: str, place: tuple[str, int], message: str
) -> None:
    key, line = place
    assert before in text
    text = SITE + text.replace(before, after)
    (found,) = (f for f in findings(tmp_path, text) if f.severity is Severity.ERROR)
    assert found.key == key
    assert message in found.message
    assert found.remedy
    with pytest.raises(ConfigError) as refused:
        load_settings(tmp_path / "f.toml", {})
    assert f"f.toml:{line}: {key}: " in str(refused.value)


def test_a_password_in_a_url_is_not_repeated(tmp_path: Path) -> None:
    text = SITE + '[store]\ndatabase = "postgresql+psycopg://u:geheim@127.0.0.1/d"'
    (found,) = findings(tmp_path, text)
    assert "geheim" not in f"{found.message} {found.remedy}"


def test_one_token_has_one_owner(tmp_path: Path) -> None:
    client = f'[[api.clients]]\norganisation = "o"\nrole = "buyer"\ntoken_sha256 = "{"0" * 64}"\n'
    (found,) = findings(tmp_path, SITE + client + client)
    assert found.key == "api.clients.1.token_sha256"


def test_two_vens_of_one_name_are_told(tmp_path: Path) -> None:
    head, _, ven = VEN.partition("[[openadr.vens]]")
    other = ven.replace('device_id = "home-1"', 'device_id = "x"')
    twice = f"{head}[[openadr.vens]]{ven}[[openadr.vens]]{other}"
    keys = [found.key for found in findings(tmp_path, SITE + twice)]
    assert keys == ["openadr.vens.1.ven_name", "openadr.vens.1.fingerprint"]


@pytest.mark.parametrize(
    ("text", "before", "after", "message"),
    [
        (BATTERY, 'serial = "SN1"', "", "has no serial"),
        (BATTERY, 'lease = "revert_timer"', "", "neither a lease nor a fallback"),
        (CHARGER, 'username = "gateway"', "", "logs in without a name"),
    ],
)
def test_what_is_only_unwise_is_a_warning(
    tmp_path: Path, text: str, before: str, after: str, message: str
) -> None:
    (found,) = findings(tmp_path, SITE + text.replace(before, after))
    assert found.severity is Severity.WARNING
    assert message in found.message
    load_settings(tmp_path / "f.toml", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('market_epoch = "2026-01-01T00:00:00Z"', "go together"),
        ("wall_epoch = 1.0", "go together"),
        ('begins_by = "begun"', "go together"),
        (
            'wall_epoch = 1.0\nmarket_epoch = "2026-01-01T00:00:00Z"\nbegins_by = "begun"',
            "says already when time begins",
        ),
        ('wall_epoch = 1.0\nmarket_epoch = "2026-01-01T00:00:00"', "has no time zone"),
    ],
)
def test_half_a_simulated_time_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (found,) = findings(tmp_path, f"lab = true\n[time]\n{text}")
    assert message in found.message


def test_a_meter_needs_no_way_back(tmp_path: Path) -> None:
    meter = BATTERY.replace('"battery"', '"meter"').replace('lease = "revert_timer"', "")
    assert findings(tmp_path, SITE + meter.replace('serial = "SN1"', "")) == []
