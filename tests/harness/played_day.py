"""A whole day in virtual time, played through the command line, and what it left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

_LONGEST_S = 900.0
_GRACE = timedelta(minutes=10)
"""A flag still counts as long after its fault ended."""


@dataclass(frozen=True)
class Played:
    """Exit code, output and report folder of one run."""

    code: int
    output: str
    folder: Path

    @cached_property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return found

    @cached_property
    def powers(self) -> list[dict[str, Any]]:
        """Rows of the truth about power."""
        return [row for row in self._truth if "fault" not in row]

    @cached_property
    def faults(self) -> list[dict[str, Any]]:
        """Rows of faults on purpose."""
        return [row for row in self._truth if "fault" in row]

    @cached_property
    def _truth(self) -> list[dict[str, Any]]:
        lines = (self.folder / "truth.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def missed(self) -> list[dict[str, Any]]:
        """Faults that no flag fits."""
        flags = self.report["flags"]
        return [fault for fault in self.faults if not any(fits(flag, fault) for flag in flags)]

    def false_alarms(self) -> list[dict[str, Any]]:
        """Flags that fit no fault."""
        flags = self.report["flags"]
        return [flag for flag in flags if not any(fits(flag, fault) for fault in self.faults)]


def fits(flag: dict[str, Any], fault: dict[str, Any]) -> bool:
    """Whether a flag names a fault's device and kind while it lasted, or shortly after."""
    if (flag["device"], flag["kind"]) != (fault["device"], fault["fault"]):
        return False
    at, since, until = map(datetime.fromisoformat, (flag["at"], fault["at"], fault["until"]))
    return since <= at <= until + _GRACE


def play(folder: Path, *options: str, **environment: str) -> Played:
    """`flexway demo --lockstep` with options; the environment goes over its settings."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "demo", "--lockstep", "--report", str(folder), *options],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        timeout=_LONGEST_S,
    )  # fmt: skip
    return Played(done.returncode, done.stdout + done.stderr, folder)
