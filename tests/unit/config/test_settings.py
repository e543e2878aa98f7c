"""Settings: errors that name the key and the remedy, safety before anything starts."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from config.loading import load_settings
from config.settings import Settings
from config.writing import to_toml
from gateway.bindings import check_unique, device_profile, modbus_endpoints
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.errors import ConfigError

Load = Callable[[str], Settings]
TLS = '[api]\ntls_certificate = "c.pem"\ntls_key = "k.pem"\n'
BATTERY = """
[[modbus.devices]]
device_id = "bat-1"
host = "127.0.0.1"
role = "battery"
[modbus.devices.profile]
min_kw = -5.0
max_kw = 5.0
lease = "revert_timer"
lease_s = 600.0
"""
CHARGER = """
[[mqtt.devices]]
device_id = "ev-1"
organisation = "org_s"
[mqtt.devices.profile]
min_kw = -7.0
max_kw = 0.0
"""
VEN = """
[[openadr.vens]]
device_id = "home-1"
ven_name = "home"
[openadr.vens.profile]
min_kw = -3.0
max_kw = 0.0
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str) -> Settings:
        path = tmp_path / "flexway.toml"
        path.write_text(text, encoding="utf-8")
        return load_settings(path)

    return load_text


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("labb = true", "labb", "did you mean 'lab'"),
        ("lab = true\n[api]\nprot = 1", "api.prot", "did you mean 'port'"),
        ("lab = true\n[stor]", "stor", "did you mean 'store'"),
        ("lab = true\n[market]\nsettlement_minute = 5", "market.settlement_minute",
         "did you mean 'settlement_minutes'"),
        ("lab = true" + BATTERY + "leese_s = 1.0", "modbus.devices.0.profile.leese_s",
         "did you mean 'lease_s'"),
        ("lab = true\n[observe]\nzzz = 1", "observe.zzz", "known keys: grace_s, late_for_s"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest_right_one(
    load: Load, text: str, key: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=f"{key}: unknown key; {hint}"):
        load(text)


def test_every_wrong_key_is_named_at_once(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            'lab = true\n[api]\nport = 70000\n[market]\nsettlement_minutes = 7\n[time]\nspeed = "x"'
        )
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "market.settlement_minutes", "time.speed", "api.port",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", '[api]\ntls_certificate = "c.pem"\n', "lab = false"])
def test_a_site_without_tls_is_refused(load: Load, text: str) -> None:
    with pytest.raises(ConfigError, match=r"api\.tls_certificate and api\.tls_key are missing"):
        load(text)


def test_a_site_with_tls_is_taken(load: Load) -> None:
    assert load(TLS).lab is False


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (TLS + "[mqtt]\ntls = false" + CHARGER, r"mqtt\.tls = false needs lab = true"),
        (TLS + VEN, r"openadr: tls_certificate, tls_key or ca_certificate is missing"),
    ],
)
def test_plain_text_to_devices_needs_a_lab(load: Load, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(text)
    load("lab = true\n" + text)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.10", "::", "gateway.example", ""])
@pytest.mark.parametrize("section", ["api", "openadr"])
def test_a_lab_beyond_loopback_is_refused(load: Load, section: str, host: str) -> None:
    with pytest.raises(ConfigError, match=rf":3: {section}\.host: .*loopback"):
        load(f'lab = true\n[{section}]\nhost = "{host}"')


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_lab_on_loopback_is_taken(load: Load, host: str) -> None:
    assert load(f'lab = true\n[api]\nhost = "{host}"').api.host == host


def test_relative_paths_count_from_the_file(load: Load, tmp_path: Path) -> None:
    settings = load(
        'lab = true\n[store]\ndatabase = "sqlite:///d/m.db"\nreadings = "r.db"\nroots = "/srv/r"\n'
        '[api]\ntls_certificate = "c.pem"\n[mqtt]\nca_certificate = "ca.pem"\n'
        '[openadr]\nstate = "o.json"'
    )
    assert settings.store.database == f"sqlite:///{tmp_path / 'd/m.db'}"
    assert settings.store.readings == str(tmp_path / "r.db")
    assert settings.store.roots == Path("/srv/r")
    assert settings.store.signing_key == tmp_path / "data/keys/journal.pem"
    assert settings.api.tls_certificate == tmp_path / "c.pem"
    assert settings.mqtt.ca_certificate == tmp_path / "ca.pem"
    assert settings.openadr.state == tmp_path / "o.json"


def test_defaults_count_from_the_file_too(load: Load, tmp_path: Path) -> None:
    settings = load("lab = true")
    assert settings.store.database == f"sqlite:///{tmp_path}/data/market.db"
    assert settings.store.readings == str(tmp_path / "data/readings.db")
    assert settings.openadr.state.is_relative_to(tmp_path)


def test_a_database_elsewhere_is_left_alone(load: Load) -> None:
    for url in ("postgresql+psycopg://market@127.0.0.1/flexway", "sqlite:////srv/market.db"):
        assert load(f'lab = true\n[store]\ndatabase = "{url}"').store.database == url


def test_a_token_in_place_of_its_hash_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text(
        'lab = true\n[[api.clients]]\norganisation = "org_a"\nrole = "buyer"\n'
        'token_sha256 = "my-plain-token"\n'
    )
    with pytest.raises(ConfigError) as refused:
        load_settings(path, {})
    assert "api.clients.0.token_sha256" in str(refused.value)
    assert "my-plain-token" not in str(refused.value)


@pytest.mark.parametrize("content", [b"lab = ", b"lab = \xff\xfe"])
def test_a_file_that_is_not_toml_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not TOML"):
        load_settings(path)


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; `flexway serve --config FILE`"):
        load_settings(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "value",
    [
        {"lab": True, "log_level": "info"},
        {"a": {"b": {"c": 1.5, "d": [1, 2, 3]}, "e": []}},
        {"mqtt": {"port": 1, "devices": [{"device_id": "x", "profile": {"min_kw": -7.0}},
                                         {"device_id": "y", "profile": {"min_kw": -1e-9}}]}},
        {"text": 'quote " backslash \\ line\nbreak\ttab \u00e4 \U0001f50b', "last": {"z": False}},
        {"a": [{"b": [{"c": 1}, {"c": 2}]}, {"b": [{"c": 3}]}], "x": "after"},
        {"delete": "\x7f"},
        {"people": {"two words": 1, "dotted.key": {"y": 2}}},
    ],
)  # fmt: skip
def test_what_is_written_reads_back(value: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(value)) == value


def test_none_is_left_out() -> None:
    assert tomllib.loads(to_toml({"a": None, "b": {"c": None, "d": 1}})) == {"b": {"d": 1}}


def test_settings_survive_writing_and_loading(load: Load) -> None:
    first = load("lab = true" + BATTERY + CHARGER + VEN)
    assert load(to_toml(first.model_dump(mode="json"))) == first


class Bound:
    """As much of an adapter as binding looks at."""

    protocol = "modbus"

    def __init__(self, *profiles: DeviceProfile) -> None:
        self._profiles = profiles

    def profiles(self) -> Sequence[DeviceProfile]:
        return self._profiles


def test_a_device_bound_twice_is_refused(load: Load) -> None:
    endpoint = modbus_endpoints(load("lab = true" + BATTERY))[0].profile
    other = device_profile("bat-2", "mqtt", load("lab = true" + BATTERY).modbus.devices[0].profile)
    check_unique([Bound(endpoint), Bound(other)])  # type: ignore[list-item]
    for adapters in ([Bound(endpoint), Bound(other, endpoint)], [Bound(endpoint, endpoint)]):
        with pytest.raises(ConfigError, match="'bat-1' is bound twice"):
            check_unique(adapters)  # type: ignore[arg-type]


def test_a_profile_is_what_the_settings_say(load: Load) -> None:
    profile = modbus_endpoints(load("lab = true" + BATTERY))[0].profile
    assert (profile.device_id, profile.protocol) == ("bat-1", "modbus")
    assert (profile.min_kw, profile.max_kw, profile.lease_s) == (-5.0, 5.0, 600.0)
    assert (profile.control, profile.lease) == (ControlKind.SETPOINT, LeaseKind.REVERT_TIMER)
    assert profile.fallback_kw is None


def test_an_aggregate_behind_a_webhook_is_configured(load: Load) -> None:
    text = (
        'lab = true\n[webhook]\nallow_addresses = ["10.1.0.0/16"]\nkey = "k/w.key"\n'
        '[[webhook.devices]]\ndevice_id = "agg-1"\norganisation = "org_s"\n'
        'profile = { min_kw = -4.0, max_kw = 1.0, lease = "event_end" }\n'
    )
    webhook = load(text).webhook
    assert webhook.key is not None
    assert webhook.key.is_absolute()
    assert webhook.devices[0].organisation == "org_s"
    with pytest.raises(ConfigError, match=r"webhook\.devices\.0\.organization: unknown key"):
        load(text.replace("organisation", "organization"))
