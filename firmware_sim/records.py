"""What the simulator writes down: the truth about power, and everything that reached a device."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from marketplace_core.verification.reading import Reading


class Recorder(Protocol):
    """Takes note of one control-relevant action on a device."""

    def __call__(self, device: str, action: str, /, **detail: object) -> None:
        """`action` such as `write`, `read`, `command`, `event`, `effect`; detail is plain data."""


def forget(_device: str, _action: str, /, **_detail: object) -> None:
    """A recorder that keeps nothing."""


class Records:
    """`truth.jsonl` (each device's mean power each minute) and `wire.jsonl` (each action).

    Every line is flushed when it is written, so a reader sees what happened even after a
    crash. Both use market time for `at`.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime]) -> None:
        """Opens both files to append; `now` gives the market time."""
        folder.mkdir(parents=True, exist_ok=True)
        self._now = now
        self._truth = _lines(folder / "truth.jsonl")
        self._wire = _lines(folder / "wire.jsonl")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._truth.close()
        self._wire.close()

    def truth(self, readings: Sequence[Reading]) -> None:
        """Write one line per device: `{at, seconds, device, power_kw}`."""
        for one in readings:
            line = {"at": iso(one.start), "seconds": one.seconds, "device": one.series}
            _write(self._truth, {**line, "power_kw": round(one.power_kw, 6)})

    def wire(self, device: str, action: str, /, **detail: object) -> None:
        """Write `{at, device, action, ...}`: implements Recorder."""
        line = {"at": iso(self._now()), "device": device, "action": action}
        _write(self._wire, {**line, **detail})


def iso(at: datetime) -> str:
    """An instant in UTC with milliseconds, as it stands in the files."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _lines(path: Path) -> TextIOWrapper:
    return path.open("a", encoding="utf-8", buffering=1)


def _write(stream: TextIOWrapper, line: Mapping[str, object]) -> None:
    stream.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
