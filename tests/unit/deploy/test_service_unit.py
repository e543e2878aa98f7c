"""The systemd unit: what it starts, what it may not do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import flexway

ROOT = Path(__file__).parents[3]
UNIT = (ROOT / "deploy/flexway.service").read_text(encoding="utf-8")
HARDENING = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes",
    "PrivateTmp": "yes", "PrivateDevices": "yes", "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes", "ProtectKernelLogs": "yes", "ProtectControlGroups": "yes",
    "ProtectClock": "yes", "ProtectHostname": "yes", "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes", "RestrictSUIDSGID": "yes", "LockPersonality": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX", "SystemCallArchitectures": "native",
    "CapabilityBoundingSet": "", "UMask": "0077",
}  # fmt: skip
SECTIONS = {"Unit", "Service", "Install"}
MOST_EXPOSED = 2.0
"""systemd's own measure: 0 is sealed, 10 is open."""


def parse(text: str) -> dict[str, dict[str, list[str]]]:
    """Section -> key -> values, as systemd reads a unit."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith(("#", ";")):
            continue
        if stripped.startswith("["):
            section = sections.setdefault(stripped.strip("[]"), {})
            continue
        key, equals, value = stripped.partition("=")
        assert equals, f"no assignment: {line}"
        section.setdefault(key, []).append(value)
    return sections


def faults(text: str) -> list[str]:
    """Rules of the unit that are broken."""
    sections = parse(text)
    service = {key: values[-1] for key, values in sections.get("Service", {}).items()}
    found = [f"{key}={value}" for key, value in HARDENING.items() if service.get(key) != value]
    rules = {
        "sections": set(sections) == SECTIONS,
        "notify": service.get("Type") == "notify" and service.get("NotifyAccess") == "main",
        "watchdog": service.get("WatchdogSec", "0") not in {"0", ""},
        "not root": service.get("User", "root") not in {"root", "0"},
        "restart": service.get("Restart") == "always",
        "no restart of a wrong configuration": service.get("RestartPreventExitStatus") == "3",
        "stop": service.get("TimeoutStopSec", "infinity") != "infinity",
    }
    return found + [rule for rule, kept in rules.items() if not kept]


def test_the_unit_keeps_its_rules() -> None:
    assert faults(UNIT) == []


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ("Type=notify", "Type=simple", "notify"),
        ("WatchdogSec=30s", "WatchdogSec=0", "watchdog"),
        ("User=flexway", "", "not root"),
        ("ProtectSystem=strict", "ProtectSystem=full", "ProtectSystem=strict"),
        ("NoNewPrivileges=yes", "#NoNewPrivileges=yes", "NoNewPrivileges=yes"),
        ("Restart=always", "Restart=no", "restart"),
    ],
)
def test_a_weaker_unit_is_caught(before: str, after: str, rule: str) -> None:
    assert before in UNIT
    assert faults(UNIT.replace(before, after)) == [rule]


def test_the_command_that_is_started_exists() -> None:
    (command,) = parse(UNIT)["Service"]["ExecStart"]
    program, *arguments = command.split()
    assert Path(program).name == "flexway"
    help_text = CliRunner().invoke(flexway, [arguments[0], "--help"])
    assert help_text.exit_code == 0
    assert arguments[1] in help_text.output


def test_systemd_itself_takes_the_unit(tmp_path: Path) -> None:
    """Where systemd is not installed, the rules above are what there is."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        assert faults(UNIT) == []
        return
    unit = tmp_path / "flexway.service"
    (command,) = parse(UNIT)["Service"]["ExecStart"]
    unit.write_text(UNIT.replace(command.split()[0], "/bin/true"))
    verified = subprocess.run(
        [analyze, "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", "--threshold",
         str(int(MOST_EXPOSED * 10)), str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stdout
