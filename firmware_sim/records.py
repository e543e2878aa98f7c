"""What the simulator writes down: the truth about power, and everything that reached a device."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from firmware_sim.world import Fault
from marketplace_core.verification.reading import Reading


class Recorder(Protocol):
    """Takes note of one control-relevant action on a device."""

    def __call__(self, device: str, action: str, /, **detail: object) -> None:
        """`action` such as `write`, `read`, `command`, `event`, `effect`; detail is plain data."""


def forget(_device: str, _action: str, /, **_detail: object) -> None:
    """A recorder that keeps nothing."""


class Truth:
    """`truth.jsonl`: what every device really did each minute, and every fault on purpose.

    Every line is written when its minute is over, so a reader sees what happened even after
    a crash. `at` is market time, the start of the minute.
    """

    def __init__(self, folder: Path, faults: Sequence[Fault] = ()) -> None:
        """Begins the file anew: a plant always begins at the start of the day."""
        folder.mkdir(parents=True, exist_ok=True)
        self._stream = (folder / "truth.jsonl").open("w", encoding="utf-8")
        self._faults = sorted(faults, key=lambda one: (one.at, one.device), reverse=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def minute(self, readings: Sequence[Reading]) -> None:
        """Write `{at, until, device, fault}` for faults that began, then `{at, device, power_kw}`.

        The readings are of one minute.
        """
        if not readings:
            return
        lines = []
        while self._faults and self._faults[-1].at <= readings[0].start:
            fault = self._faults.pop()
            times = {"at": iso(fault.at), "until": iso(fault.until)}
            lines.append(_line({**times, "device": fault.device, "fault": fault.kind.value}))
        self._stream.write("".join([*lines, *truth_rows(readings)]))
        self._stream.flush()


class WireLog:
    """`wire.jsonl`: everything that reached a device, for debugging; market time for `at`."""

    def __init__(self, folder: Path, now: Callable[[], datetime]) -> None:
        """Opens the file to append; `now` gives the market time."""
        folder.mkdir(parents=True, exist_ok=True)
        self._now = now
        self._wire = _lines(folder / "wire.jsonl")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wire.close()

    def note(self, device: str, action: str, /, **detail: object) -> None:
        """Write `{at, device, action, ...}`: implements Recorder."""
        line = {"at": iso(self._now()), "device": device, "action": action}
        self._wire.write(_line({**line, **detail}))


def truth_rows(readings: Sequence[Reading]) -> list[str]:
    """The lines `{at, device, power_kw}` of one minute's readings."""
    at = iso(readings[0].start)
    return [
        _line({"at": at, "device": one.series, "power_kw": round(one.power_kw, 6)})
        for one in readings
    ]


def iso(at: datetime) -> str:
    """An instant in UTC with milliseconds, as it stands in the files."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _lines(path: Path) -> TextIOWrapper:
    return path.open("a", encoding="utf-8", buffering=1)


def _line(values: Mapping[str, object]) -> str:
    return json.dumps(values, ensure_ascii=False, default=str) + "\n"
