"""A client of `python -m firmware_sim lockstep`, written from its description."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgpack

Answer = dict[str, Any]
MINUTE_US = 60_000_000


def micros(at: datetime) -> int:
    return round(at.timestamp() * 1e6)


class PipeClient:
    """Starts the simulator, asks it, and ends it; a context manager."""

    def __init__(self, scenario: Path, world: Path, *extra: str) -> None:
        arguments = ["lockstep", "--scenario", str(scenario), "--world", str(world), *extra]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "firmware_sim", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.now_us = 0
        self.raw = b""
        """Bytes of the last answer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()

    def ask(self, op: str, **fields: Any) -> Answer:
        self.send(msgpack.packb({"op": op, "now_us": self.now_us, **fields}))
        return self.receive()

    def send(self, body: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(struct.pack(">I", len(body)) + body)
        self.process.stdin.flush()

    def receive(self) -> Answer:
        assert self.process.stdout is not None
        head = self.process.stdout.read(4)
        assert len(head) == 4, f"the simulator is gone: exit code {self.process.poll()}"
        (length,) = struct.unpack(">I", head)
        self.raw = self.process.stdout.read(length)
        answer: Answer = msgpack.unpackb(self.raw)
        return answer

    def hello(self) -> Answer:
        answer = self.ask("hello")
        self.now_us = answer["start_us"]
        return answer

    def step(self, minutes: int = 1) -> list[Answer]:
        """Advance, and confirm nothing."""
        until = self.now_us + minutes * MINUTE_US
        frames: list[Answer] = self.ask("step", until_us=until)["frames"]
        self.now_us = until
        return frames

    def set(self, device: str, power_kw: float, *, minutes: int, **fields: Any) -> Answer:
        """Hold a power from now on."""
        return self.ask("set", **{
            "device": device, "id": "sp_1", "order_id": "ord_1", "revision": 1,
            "power_kw": power_kw, "valid_from_us": self.now_us,
            "valid_until_us": self.now_us + minutes * MINUTE_US, "lease_s": minutes * 60.0,
            **fields,
        })  # fmt: skip

    def confirm(self, frames: Sequence[Answer]) -> None:
        """Tell every device that what it sent is stored."""
        for frame in frames:
            if frame["kind"] == "mqtt" and frame["topic"].endswith("/telemetry"):
                try:
                    sent = msgpack.unpackb(frame["payload"])
                    boot, through = sent["boot"], sent["readings"][-1][0]
                except (ValueError, TypeError, LookupError):
                    continue  # malformed on purpose
                device = frame["topic"].split("/")[4]
                self.ask("stored", device=device, boot=boot, through=through)
