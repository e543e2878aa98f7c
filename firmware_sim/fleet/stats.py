"""What a fleet's process says of itself: one JSON line each second."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO


@dataclass
class Stats:
    """Counts since the start."""

    path: Path | None = None
    connects: int = 0
    """Connections that were taken in."""
    failed: int = 0
    """Tries that found nobody, or took too long."""
    refused: int = 0
    losses: int = 0
    """Connections lost on purpose, by the scenario."""
    published: int = 0
    """Telemetry messages (MQTT)."""
    commands: int = 0
    """Commands (MQTT) or writes (Modbus)."""
    stored: int = 0
    """Confirmations that readings are stored (MQTT)."""
    reads: int = 0
    """Modbus requests that read."""
    _file: TextIO | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        """Open the file anew."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8", buffering=1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Close it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, at: float, *, up: int) -> None:
        """A line: seconds since the start, wall time, how many are connected, the counts."""
        if self._file is None:
            return
        line = {"t": round(at, 3), "wall": round(time.time(), 3), "up": up, **self._counts()}
        self._file.write(json.dumps(line) + "\n")

    def _counts(self) -> dict[str, int]:
        hidden = {"path", "_file"}
        return {name: getattr(self, name) for name in self.__dataclass_fields__
                if name not in hidden}  # fmt: skip
