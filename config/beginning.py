"""When simulated time begins: a file says so, to every process that waits for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from marketplace_core.errors import ConfigError
from marketplace_core.simtime import AwaitedTime


def begin(path: Path, unix_seconds: float) -> None:
    """Let simulated time run from a wall instant on; the file is never there by half."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(repr(unix_seconds), encoding="ascii")
    part.replace(path)


def awaited_time(market_epoch: datetime, speed: float, path: Path) -> AwaitedTime:
    """The time map of whoever waits for the file.

    What is asked of it raises ConfigError where the file holds no Unix seconds.
    """
    return AwaitedTime(
        market_epoch, speed, begun=_seconds_in(path), wall=lambda: datetime.now(UTC)
    )  # fmt: skip


def _seconds_in(path: Path) -> Callable[[], float | None]:
    def begun() -> float | None:
        try:
            return float(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConfigError(f"{path} holds no Unix seconds: {error}") from error

    return begun
