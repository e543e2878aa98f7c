"""Real processes that need not import everything again: forked from one that has.

What a service imports costs seconds of a processor, and the kill tests start a hundred of
them. A `fork server` of the standard library imports once, is single-threaded, and forks. What
comes out is a process like any other: it has its own id, memory, files and sockets, and can
be killed with any signal.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import IO, Any, Final

from gateway.children import Child

_MODULES: Final = [
    "gateway.cli.serve",
    "gateway.cli",
    "firmware_sim.commands_run",
    "tests.harness.killer",
    "tests.harness.devices",
]
_CONTEXT: Final[ForkServerContext] = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(_MODULES)


def run_module(arguments: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    """In the new process: what `python -m <arguments>` does, with its output in a file."""
    with Path(log).open("ab") as file, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    module, *rest = arguments
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


class _Forked:
    """A forked process with the interface of `subprocess.Popen` that `Child` uses."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self.pid: int = process.pid or 0

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired([f"process {self.pid}"], timeout or 0.0)
        return code


class PreloadedChild(Child):
    """A child whose imports were done before it was born."""

    def _started(self, arguments: Sequence[str], log: IO[bytes]) -> Any:
        process = _CONTEXT.Process(
            target=run_module, args=(list(arguments), dict(os.environ), log.name), daemon=True
        )
        process.start()
        return _Forked(process)
