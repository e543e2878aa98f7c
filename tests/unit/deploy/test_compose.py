"""The compose file: hardened services, secrets as files, settings that exist."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from config.loading import read_settings
from gateway.cli import flexway

DEPLOY = Path(__file__).parents[3] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text(encoding="utf-8"))
SETTINGS = DEPLOY / "flexway" / "flexway.toml"
SERVICES = ("flexway", "mosquitto", "postgres", "redis")
SECRET_WORDS = re.compile(r"password|secret|token", re.IGNORECASE)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `secrets.sh init` makes."""
    folder = tmp_path_factory.mktemp("secrets")
    subprocess.run(
        [str(DEPLOY / "secrets.sh"), "init", "gateway.example"], check=True, capture_output=True,
        env={"SECRETS": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin"},
    )  # fmt: skip
    return folder


def faults(compose: Mapping[str, Any]) -> list[str]:
    """Rules that a compose file breaks, as `service: rule`."""
    return [
        f"{name}: {rule}"
        for name, service in compose["services"].items()
        for rule, kept in rules(compose, service).items()
        if not kept
    ]


def rules(compose: Mapping[str, Any], service: Mapping[str, Any]) -> dict[str, bool]:
    user = str(service.get("user", "root")).split(":")[0]
    volumes = [volume.split(":") for volume in service.get("volumes", ())]
    environment = service.get("environment", {})
    return {
        "not root": user not in {"root", "0"},
        "read only": service.get("read_only") is True,
        "no capabilities": service.get("cap_drop") == ["ALL"] and "cap_add" not in service,
        "no new privileges": "no-new-privileges:true" in service.get("security_opt", ()),
        "health": bool(service.get("healthcheck", {}).get("test")),
        "restart": service.get("restart") == "unless-stopped",
        "pinned": bool(re.search(r":\d+(\.\d+)*", service["image"])),
        "not privileged": not service.get("privileged") and "network_mode" not in service,
        "known secrets": set(service.get("secrets", ())) <= set(compose["secrets"]),
        "known volumes": all(
            v[0].startswith("./") or v[0] in compose["volumes"] for v in volumes
        ),
        "files are read only": all(v[-1] == "ro" for v in volumes if v[0].startswith("./")),
        "secrets are files": all(
            key.endswith("_FILE") for key in environment if SECRET_WORDS.search(key)
        ),
    }  # fmt: skip


def test_the_services_keep_the_rules() -> None:
    assert set(COMPOSE["services"]) == set(SERVICES)
    assert faults(COMPOSE) == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"user": "root"}, "not root"),
        ({"user": "0:0"}, "not root"),
        ({"read_only": False}, "read only"),
        ({"cap_drop": []}, "no capabilities"),
        ({"security_opt": []}, "no new privileges"),
        ({"healthcheck": {}}, "health"),
        ({"image": "redis:latest"}, "pinned"),
        ({"privileged": True}, "not privileged"),
        ({"secrets": ["unheard-of"]}, "known secrets"),
        ({"volumes": ["unheard-of:/data"]}, "known volumes"),
        ({"volumes": ["./x:/data"]}, "files are read only"),
        ({"environment": {"REDIS_PASSWORD": "x"}}, "secrets are files"),
    ],
)
def test_a_weaker_service_is_caught(change: dict[str, Any], rule: str) -> None:
    compose = copy.deepcopy(COMPOSE)
    compose["services"]["redis"].update(change)
    assert faults(compose) == [f"redis: {rule}"]


def test_every_mounted_file_is_there() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).is_file(), source


def test_every_dependency_is_a_service_with_a_health_check() -> None:
    for service in COMPOSE["services"].values():
        for name, how in service.get("depends_on", {}).items():
            assert name in COMPOSE["services"]
            assert how["condition"] in {"service_healthy", "service_started"}


def test_every_secret_is_made_and_used(secrets: Path) -> None:
    used = {name for service in COMPOSE["services"].values() for name in service["secrets"]}
    assert used == set(COMPOSE["secrets"])
    for name, secret in COMPOSE["secrets"].items():
        assert secret["file"] == f"secrets/{name}"
        mode = (secrets / name).stat().st_mode & 0o777
        assert mode == (0o644 if name == "ca.pem" else 0o600)


def test_secrets_are_never_made_anew(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    environ = {"SECRETS": str(secrets), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin"}
    command = [str(DEPLOY / "secrets.sh"), "init", "other.example"]
    subprocess.run(command, check=True, env=environ, capture_output=True)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before


def test_every_variable_of_ours_is_a_setting() -> None:
    environment = COMPOSE["services"]["flexway"]["environment"]
    assert [name for name in environment if name.startswith("FLEXWAY_")]
    environ = {name: str(value) for name, value in environment.items()}
    assert read_settings(SETTINGS, environ).findings == ()
    wrong = read_settings(SETTINGS, {**environ, "FLEXWAY_LOGLEVEL": "info"}).findings
    assert len(wrong) == 1


def test_the_mounted_settings_pass_the_check(secrets: Path, tmp_path: Path) -> None:
    text = SETTINGS.read_text(encoding="utf-8")
    (tmp_path / "data").mkdir()
    moved = text.replace("/run/secrets", str(secrets)).replace(
        "/var/lib/flexway", str(tmp_path / "data")
    )
    path = tmp_path / "flexway.toml"
    path.write_text(moved, encoding="utf-8")
    done = CliRunner().invoke(flexway, ["check", "--config", str(path), "--json"])
    assert json.loads(done.output)["findings"] == []
    assert done.exit_code == 0


def test_settings_name_secrets_that_are_mounted() -> None:
    named = set(re.findall(r"/run/secrets/([\w.]*\w)", SETTINGS.read_text(encoding="utf-8")))
    assert named == set(COMPOSE["services"]["flexway"]["secrets"])
    conf = (DEPLOY / "mosquitto/mosquitto.conf").read_text(encoding="utf-8")
    named = set(re.findall(r"/run/secrets/([\w.]+)", conf))
    assert named == set(COMPOSE["services"]["mosquitto"]["secrets"])


def test_settings_name_hosts_that_are_services() -> None:
    settings = read_settings(SETTINGS, {}).settings
    assert settings is not None
    assert settings.mqtt.host in COMPOSE["services"]
    assert f"@{'postgres'}/" in settings.store.database
    assert f"{settings.api.port}:{settings.api.port}" in COMPOSE["services"]["flexway"]["ports"]


def test_what_the_service_writes_lies_in_volumes() -> None:
    settings = read_settings(SETTINGS, {}).settings
    assert settings is not None
    mounted = [v.split(":")[1] for v in COMPOSE["services"]["flexway"]["volumes"]]
    store = settings.store
    for path in (Path(store.readings), store.roots, store.signing_key):
        assert any(path.is_relative_to(place) for place in mounted), path


def test_the_image_owns_the_folders_that_volumes_are_made_from() -> None:
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text(encoding="utf-8")
    service = COMPOSE["services"]["flexway"]
    for volume in service["volumes"]:
        source, place = volume.split(":")[:2]
        assert source.startswith("./") or place in dockerfile
    assert f"--uid {service['user'].split(':')[0]}" in dockerfile
