"""The import contracts hold, and a module that breaks one is caught."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("marketplace_core", "adapters", "gateway", "config", "firmware_sim")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command of the environment that runs this test, on the tree in `folder`."""
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(command), "--no-cache"], cwd=folder, capture_output=True, check=False, text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "data")
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_every_contract_is_kept() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    count = len(pyproject["tool"]["importlinter"]["contracts"])
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("place", "line", "contract"),
    [
        ("marketplace_core/registry", "import gateway.clock", "market core imports nothing"),
        ("marketplace_core", "import asyncio", "market core is pure"),
        ("adapters/mqtt", "import adapters.modbus.wire", "Protocols never import each other"),
        ("adapters/webhook", "import adapters.mqtt.wire", "Protocols never import each other"),
        ("firmware_sim", "import adapters.webhook.courier", "The simulator sees codecs only"),
        ("adapters/openadr", "import config.settings", "Adapters know the market core only"),
        ("gateway", "import firmware_sim.plant", "gateway never imports the simulator"),
        ("firmware_sim", "import adapters.mqtt.link", "The simulator sees codecs only"),
        ("gateway/stages/dispatch", "import gateway.stages.verify", "No stage imports another"),
        ("gateway/api", "import config.settings", "Only the bootstrap"),
    ],
)
def test_a_violation_is_caught(copy: Path, place: str, line: str, contract: str) -> None:
    intruder = copy / place / "intruder.py"
    intruder.write_text(f"{line}\n", encoding="utf-8")
    try:
        done = lint_imports(copy)
    finally:
        intruder.unlink()
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [row for row in done.stdout.splitlines() if row.endswith("BROKEN")]
    assert any(contract in row for row in broken), done.stdout
