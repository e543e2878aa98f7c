"""Every command is found, and a command loads what it needs and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from gateway.cli import flexway

LOADED = """
import sys
import gateway.cli
sys.argv = ["flexway", "serve", "--help"]
try:
    gateway.cli.main()
except SystemExit:
    print([name for name in ("matplotlib", "aiomqtt", "redis") if name in sys.modules])
"""


@pytest.mark.parametrize("name", ["check", "demo", "journal", "modbus", "serve"])
def test_a_command_is_listed_and_explains_itself(name: str) -> None:
    assert name in CliRunner().invoke(flexway, ["--help"]).output
    done = CliRunner().invoke(flexway, [name, "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.output


def test_a_command_that_is_none_is_said() -> None:
    done = CliRunner().invoke(flexway, ["srve"])
    assert done.exit_code == 2
    assert "srve" in done.output


def test_the_service_starts_without_what_other_commands_need() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
