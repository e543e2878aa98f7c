"""The devices of a virtual day: a child process that answers one request at a time.

Frames are a big-endian length of four bytes and a MessagePack map. Times are market time in
Unix microseconds, powers kilowatts, injection positive.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.store.engine import to_us
from marketplace_core.errors import FlexwayError

_LENGTH: Final = struct.Struct(">I")
_MOST: Final = 64 * 1024 * 1024
"""Bytes of one answer."""
_END_S: Final = 10.0


class PipeError(FlexwayError):
    """The devices' process ended, or said something that is no answer."""


class DevicePipe:
    """Talks to `python -m <arguments>` over its standard input and output."""

    def __init__(self, arguments: Sequence[str], log: Path, now: Callable[[], datetime]) -> None:
        """`log` takes the child's standard error; `now` gives the market time."""
        self._arguments = arguments
        self._log = log
        self._now = now
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def end(self) -> int:
        """Ask the child to end; return its exit code."""
        process = self._started()
        if process.stdin is not None and not process.stdin.closed:
            with suppress(BrokenPipeError):  # what a child that is gone never read
                process.stdin.close()
        try:
            code = process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return code

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request and its answer. Raises PipeError."""
        process = self._started()
        if process.stdin is None or process.stdout is None:
            raise PipeError("the devices' process has no pipe")
        body = msgspec.msgpack.encode({"op": op, "now_us": to_us(self._now()), **fields})
        try:
            process.stdin.write(_LENGTH.pack(len(body)) + body)
            process.stdin.flush()
            head = process.stdout.read(_LENGTH.size)
        except OSError as error:
            raise PipeError(f"the devices' process is gone: {error}; see {self._log}") from error
        if len(head) < _LENGTH.size:
            raise PipeError(f"the devices' process ended; see {self._log}")
        (length,) = _LENGTH.unpack(head)
        if length > _MOST:
            raise PipeError(f"an answer of {length} bytes")
        answer = self._decoded(process.stdout.read(length), length)
        if "error" in answer:
            raise PipeError(f"the devices refuse {op}: {answer['error']}")
        return answer

    def _decoded(self, body: bytes, length: int) -> dict[str, Any]:
        if len(body) < length:
            raise PipeError(f"the devices' process ended within an answer; see {self._log}")
        try:
            return msgspec.msgpack.decode(body, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise PipeError(f"what the devices say is no answer: {error}") from error

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise PipeError("the devices' process was not started")
        return self._process
