"""The example of one real site: nothing simulated in it, nothing wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from config.loading import read_settings
from gateway.cli import flexway
from tests.harness.certificates import make_certificate

SITE = Path(__file__).parents[3] / "config/examples/site.toml"
TEXT = SITE.read_text(encoding="utf-8")
TO_BE_MADE = re.compile(r"/etc/flexway/\S+ does not exist$")
OF_THIS_MACHINE = re.compile(r"(cannot be written|same file system)")


def check(path: Path) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(flexway, ["check", "--config", str(path), "--json"])
    return done.exit_code, json.loads(done.output)


def test_only_what_must_be_made_first_is_missing() -> None:
    code, found = check(SITE)
    assert code == 1
    keys = [
        finding["key"] for finding in found["findings"]
        if not OF_THIS_MACHINE.search(finding["message"])
    ]  # fmt: skip
    assert sorted(keys) == [
        "api.tls_certificate", "api.tls_key", "mqtt.ca_certificate", "mqtt.password_file",
        "openadr.ca_certificate", "openadr.tls_certificate", "openadr.tls_key",
    ]  # fmt: skip
    for finding in found["findings"]:
        message = finding["message"]
        assert TO_BE_MADE.search(message) or OF_THIS_MACHINE.search(message)
        assert finding["line"]
        assert finding["remedy"]


def test_once_that_is_made_nothing_is_wrong(tmp_path: Path) -> None:
    for name in ("api", "vtn", "ca"):
        make_certificate(tmp_path, name)
    (tmp_path / "mqtt-password").touch(mode=0o600)
    (tmp_path / "mqtt-password").write_text("secret")
    text = re.sub(r"/etc/flexway/(tls|secrets)", str(tmp_path), TEXT)
    text = text.replace("/var/lib/flexway", str(tmp_path / "lib"))
    path = tmp_path / "site.toml"
    path.write_text(text.replace("/srv/flexway-roots", str(tmp_path / "roots")))
    code, found = check(path)
    assert code == 0
    # The one warning is true here: a test's folder lies on one disk.
    assert [finding["key"] for finding in found["findings"]] == ["store.roots"]


def test_it_is_a_site_and_no_simulation() -> None:
    settings = read_settings(SITE, {}).settings
    assert settings is not None
    assert not settings.lab
    assert settings.time.market_epoch is None
    assert {device.role for device in settings.modbus.devices} == {"battery", "inverter", "meter"}
    assert len(settings.mqtt.devices) >= 3
    assert settings.mqtt.tls
    assert len(settings.openadr.vens) == 1
    assert not re.search(r"127\.0\.0\.1|localhost|simulat|demo", TEXT)


def test_addresses_are_those_of_documentation() -> None:
    hosts = re.findall(r'host = "(\d[\d.]+)"', TEXT)
    assert all(host.startswith("192.0.2.") or host == "0.0.0.0" for host in hosts)
