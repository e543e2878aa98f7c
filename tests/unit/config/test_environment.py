"""The environment goes over the file, the file over the defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config.loading import load_settings, read_settings
from config.settings import Settings
from marketplace_core.errors import ConfigError

CLIENT = {"organisation": "o", "role": "buyer", "token_sha256": "0" * 64}
FILE = """\
lab = true
[api]
port = 1000
[[modbus.devices]]
device_id = "bat-1"
host = "127.0.0.1"
role = "battery"
profile = {min_kw = -5, max_kw = 5, fallback_kw = 0}
"""


def load(folder: Path, text: str = FILE, **variables: str) -> Settings:
    path = folder / "flexway.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, {f"FLEXWAY_{key}": value for key, value in variables.items()})


def test_environment_beats_file_beats_default(tmp_path: Path) -> None:
    assert load(tmp_path, "lab = true").api.port == 8443
    assert load(tmp_path).api.port == 1000
    assert load(tmp_path, API__PORT="2000").api.port == 2000


@pytest.mark.parametrize(
    ("variable", "text", "found"),
    [
        ("LAB", "true", lambda s: s.lab is True),
        ("LOG_LEVEL", "debug", lambda s: s.log_level == "debug"),
        ("MARKET__SETTLEMENT_MINUTES", "30", lambda s: s.market.settlement_minutes == 30),
        ("STORE__ROOT_EVERY_S", "2.5", lambda s: s.store.root_every_s == 2.5),
        ("STORE__ROOTS", "/srv/roots", lambda s: s.store.roots == Path("/srv/roots")),
        ("METRICS__PER_DEVICE", "true", lambda s: s.metrics.per_device is True),
        ("MODBUS__DEVICES__0__HOST", "10.0.0.9", lambda s: s.modbus.devices[0].host == "10.0.0.9"),
        ("MODBUS__DEVICES__0__PROFILE__MAX_KW", "7",
         lambda s: s.modbus.devices[0].profile.max_kw == 7),
        ("API__CLIENTS", json.dumps([CLIENT]),
         lambda s: s.api.clients[0].organisation == "o"),
    ],
)  # fmt: skip
def test_a_variable_of_every_kind_is_taken(
    tmp_path: Path, variable: str, text: str, found: Any
) -> None:
    assert found(load(tmp_path, **{variable: text}))


def test_an_empty_variable_takes_an_optional_value_away(tmp_path: Path) -> None:
    text = 'lab = true\n[mqtt]\nca_certificate = "ca.pem"\nusername = "me"'
    settings = load(tmp_path, text, MQTT__CA_CERTIFICATE="", MQTT__USERNAME="")
    assert settings.mqtt.ca_certificate is None
    assert settings.mqtt.username == ""


def test_items_are_added_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    variables = {
        f"API__CLIENTS__{number}__{key}": value
        for number in range(11)
        for key, value in (
            ("ORGANISATION", f"org-{number}"), ("ROLE", "buyer"),
            ("TOKEN_SHA256", f"{number:064x}"),
        )
    }  # fmt: skip
    clients = load(tmp_path, **variables).api.clients
    assert [client.organisation for client in clients] == [f"org-{n}" for n in range(11)]


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        ("API__PROT", "1", "FLEXWAY_API__PROT: unknown variable; did you mean 'FLEXWAY_API__PORT'"),
        ("API_PORT", "1", "FLEXWAY_API_PORT: unknown variable; did you mean 'FLEXWAY_API__PORT'"),
        ("MQQT__HOST", "x", "unknown variable; did you mean 'FLEXWAY_MQTT'"),
        ("MODBUS__DEVICES__0__HOTS", "x", "did you mean 'FLEXWAY_MODBUS__DEVICES__0__HOST'"),
        ("MODBUS__DEVICES__5__HOST", "x", "'5' numbers no item; items count from 0"),
        ("MODBUS__DEVICES__HOST", "x", "'host' numbers no item"),
        ("MODBUS__DEVICES", "nonsense", "not JSON"),
        ("API__PORT__DEEPER", "1", "FLEXWAY_API__PORT has no keys below it"),
        ("API__PORT", "many", "FLEXWAY_API__PORT: api.port: .*write a whole number"),
        ("API__PORT", "70000", "FLEXWAY_API__PORT: api.port: .*at most 65535"),
        ("LOG_LEVEL", "loud", "FLEXWAY_LOG_LEVEL: log_level: .*'debug', 'info'"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named_with_its_remedy(
    tmp_path: Path, variable: str, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(tmp_path, **{variable: text})


def test_a_table_that_the_file_has_as_a_value_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FLEXWAY_API__PORT: the file has a plain value"):
        load(tmp_path, "lab = true\napi = 3", API__PORT="1")


def test_foreign_variables_are_nobodys_business(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text("lab = true")
    environ = {"HOME": "/", "FLEX": "1", "flexway_api__port": "x", "MY_FLEXWAY_LAB": "x"}
    assert read_settings(tmp_path / "f.toml", environ).findings == ()
