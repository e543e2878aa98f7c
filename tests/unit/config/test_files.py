"""Files that settings name: certificates, secrets, places that are written to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.files import file_findings
from config.findings import Finding, Severity
from config.settings import (
    ApiSettings,
    MqttDeviceSettings,
    MqttSettings,
    ProfileSettings,
    Settings,
    StoreSettings,
)
from tests.harness.certificates import make_certificate

NOW = datetime.now(UTC)


def check(folder: Path, *, now: datetime = NOW, **sections: object) -> list[Finding]:
    store = StoreSettings(
        database=f"sqlite:///{folder}/m.db", readings=folder / "r.db",
        roots=folder / "roots.jsonl", signing_key=folder / "key.pem",
    )  # fmt: skip
    settings = Settings.model_validate({"store": store, **sections})
    return [found for found in file_findings(settings, now) if found.key != "store.roots"]


def api(certificate: Path, key: Path) -> ApiSettings:
    return ApiSettings(tls_certificate=certificate, tls_key=key)


def broker(**keys: object) -> MqttSettings:
    device = MqttDeviceSettings(
        device_id="ev-1", organisation="o", profile=ProfileSettings(min_kw=-7, max_kw=0)
    )
    return MqttSettings.model_validate({"devices": (device,), **keys})


def test_files_in_order_are_no_finding(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "api")
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("secret")
    mqtt = broker(ca_certificate=certificate, password_file=password)
    assert check(tmp_path, api=api(certificate, key), mqtt=mqtt) == []


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    _, key = make_certificate(tmp_path, "api")
    (found,) = check(tmp_path, api=api(tmp_path / "none.pem", key))
    assert found.key == "api.tls_certificate"
    assert f"{tmp_path / 'none.pem'} does not exist" in found.message
    assert found.stops


@pytest.mark.parametrize(
    ("days", "passed", "severity", "message"),
    [
        (365, -2, Severity.ERROR, "is not valid before"),
        (365, 366, Severity.ERROR, "expired on"),
        (365, 340, Severity.WARNING, "expires on"),
    ],
)
def test_a_certificate_is_judged_by_its_dates(
    tmp_path: Path, days: float, passed: float, severity: Severity, message: str
) -> None:
    certificate, key = make_certificate(tmp_path, "api", days=days)
    later = NOW + timedelta(days=passed)
    (found,) = check(tmp_path, now=later, api=api(certificate, key))
    assert (found.key, found.severity) == ("api.tls_certificate", severity)
    assert message in found.message


def test_an_expired_certificate_does_not_keep_devices_undriven(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "api", days=1)
    (found,) = check(tmp_path, now=NOW + timedelta(days=9), api=api(certificate, key))
    assert not found.stops


def test_a_key_of_another_certificate_is_found(tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path, "api")
    _, other = make_certificate(tmp_path, "other")
    (found,) = check(tmp_path, api=api(certificate, other))
    assert found.key == "api.tls_key"
    assert "is not the key of" in found.message


def test_swapped_files_are_found(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "api")
    keys = [f.key for f in check(tmp_path, api=api(key, certificate)) if f.stops]
    assert "api.tls_certificate" in keys
    assert "api.tls_key" in keys


def test_an_expired_ca_is_found(tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path, "ca", days=1)
    mqtt = broker(ca_certificate=certificate)
    (found,) = check(tmp_path, now=NOW + timedelta(days=9), mqtt=mqtt)
    assert found.key == "mqtt.ca_certificate"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_secret_that_others_can_read_is_a_warning(tmp_path: Path, mode: int) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(mode)
    (found,) = check(tmp_path, mqtt=broker(password_file=password, tls=False))
    assert (found.key, found.severity) == ("mqtt.password_file", Severity.WARNING)
    assert f"{mode:04o}" in found.message
    assert found.remedy == f"chmod 600 {password}"


def test_an_empty_secret_is_an_error(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.touch(mode=0o600)
    (found,) = check(tmp_path, mqtt=broker(password_file=password, tls=False))
    assert (found.severity, found.stops) == (Severity.ERROR, True)


def test_the_password_file_of_a_database_is_looked_at(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://u@h/d?passfile={tmp_path / 'pgpass'}"
    store = StoreSettings(
        database=url, readings=tmp_path / "r", roots=tmp_path / "o", signing_key=tmp_path / "k"
    )
    (found,) = file_findings(Settings(store=store), NOW)
    assert found.key == "store.database"
    (tmp_path / "pgpass").write_text("h:5432:d:u:p")
    (tmp_path / "pgpass").chmod(0o644)
    (found,) = file_findings(Settings(store=store), NOW)
    assert found.severity is Severity.WARNING


def test_roots_beside_the_database_are_a_warning(tmp_path: Path) -> None:
    store = StoreSettings(
        database=f"sqlite:///{tmp_path}/new/m.db", readings=tmp_path / "r.db",
        roots=tmp_path / "roots/new/r.jsonl", signing_key=tmp_path / "key.pem",
    )  # fmt: skip
    (found,) = file_findings(Settings(store=store), NOW)
    assert (found.key, found.severity) == ("store.roots", Severity.WARNING)
    elsewhere = store.model_copy(update={"roots": Path("/proc/roots.jsonl")})
    apart = file_findings(Settings(store=elsewhere), NOW)
    assert [found for found in apart if found.severity is Severity.WARNING] == []


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    store = StoreSettings(
        database=f"sqlite:///{tmp_path}/disk/m.db", readings=tmp_path / "r.db",
        roots=tmp_path / "r.jsonl", signing_key=tmp_path / "disk/new/key.pem",
    )  # fmt: skip
    found = file_findings(Settings(store=store), NOW)
    keys = [each.key for each in found if each.severity is Severity.ERROR]
    assert keys == ["store.database", "store.signing_key"]


def test_a_folder_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "r.db").mkdir()
    (found,) = check(tmp_path)
    assert found.key == "store.readings"


def test_looking_writes_nothing(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    check(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
