"""Child processes of a command: started, waited for, stopped, their logs kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from marketplace_core.errors import FlexwayError

_POLL_S = 0.02


class Child:
    """A child process that writes a ready file once it is up."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        """Start `python -m <arguments>`; its output goes to `<folder>/<name>.log`."""
        self.name = name
        self._log = folder / f"{name}.log"
        self.ready_file = folder / f"{name}.ready.json"
        self.ready_file.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = self._started(arguments, log)

    def _started(self, arguments: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_ready(self, seconds: float = 30.0) -> Any:
        """What the child wrote into its ready file; FlexwayError when it never does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.ready_file.exists():
                return json.loads(self.ready_file.read_text(encoding="utf-8"))
            if not self.running:
                break
            time.sleep(_POLL_S)
        raise FlexwayError(f"{self.name} did not become ready:\n{self.tail()}")

    def stop(self, seconds: float = 15.0) -> int:
        """Ask it to end, insist when it does not; return its exit code."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it as a crash would; return its exit code."""
        self._process.kill()
        return self._process.wait()

    def wait(self, seconds: float) -> int:
        """Wait for it to end by itself; raises subprocess.TimeoutExpired."""
        return self._process.wait(seconds)

    def tail(self, lines: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
