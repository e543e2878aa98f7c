"""The one affine map between market time and wall time, for simulations.

`market = market_epoch + (wall - wall_epoch) * speed`. In production the map is the
identity: both epochs equal and speed 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec

from marketplace_core.errors import ConfigError

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT = timedelta(seconds=0.1)
"""Wall time after which whoever waits for time to begin looks again."""


class AffineTime(msgspec.Struct, frozen=True):
    """Implements the TimeMap port."""

    market_epoch: datetime
    """Market time (aware UTC) at the wall epoch."""
    wall_epoch: datetime
    """Wall time (aware UTC) at which market time is `market_epoch`."""
    speed: float = 1.0
    """Market seconds per wall second."""

    def __post_init__(self) -> None:
        """Refuse naive epochs and speeds at which time does not advance."""
        if self.market_epoch.tzinfo is None or self.wall_epoch.tzinfo is None:
            msg = "the epochs of a time map need aware instants"
            raise ValueError(msg)
        if not (math.isfinite(self.speed) and self.speed > 0):
            msg = f"speed is market seconds per wall second and must be above 0, not {self.speed}"
            raise ValueError(msg)

    def to_market(self, wall: datetime) -> datetime:
        """Market time of a wall instant (both aware UTC)."""
        return self.market_epoch + (wall - self.wall_epoch) * self.speed

    def to_wall(self, market: datetime) -> datetime:
        """Wall time of a market instant (both aware UTC)."""
        return self.wall_epoch + (market - self.market_epoch) / self.speed


class AwaitedTime:
    """An affine map whose wall epoch is not known yet: market time stands until it is.

    Implements the TimeMap port. Processes that share it set themselves up in their own time,
    and the day begins for all of them once they are ready, however long that took.
    """

    def __init__(
        self, market_epoch: datetime, speed: float, *,
        begun: Callable[[], float | None], wall: Callable[[], datetime],
    ) -> None:  # fmt: skip
        """`begun` gives the Unix seconds at which market time left its epoch, None before.

        `wall` gives the wall time now.
        """
        self._before = AffineTime(market_epoch, _UNIX_EPOCH, speed)
        self._begun = begun
        self._wall = wall
        self._map: AffineTime | None = None

    @property
    def speed(self) -> float:
        """Market seconds per wall second, once time runs."""
        return self._before.speed

    def to_market(self, wall: datetime) -> datetime:
        """Market time of a wall instant (both aware UTC); the epoch while time stands."""
        running = self._running()
        return self._before.market_epoch if running is None else running.to_market(wall)

    def to_wall(self, market: datetime) -> datetime:
        """Wall time of a market instant (both aware UTC).

        While time stands nobody knows: it is a moment from now at the earliest.
        """
        running = self._running()
        return self._wall() + _MOMENT if running is None else running.to_wall(market)

    def _running(self) -> AffineTime | None:
        if self._map is None and (seconds := self._begun()) is not None:
            before = self._before
            self._map = AffineTime(before.market_epoch, from_unix(seconds), before.speed)
        return self._map


def identity() -> AffineTime:
    """The map of production: market time is wall time."""
    return AffineTime(_UNIX_EPOCH, _UNIX_EPOCH, 1.0)


def from_unix(seconds: float) -> datetime:
    """The aware UTC instant of a Unix time in seconds."""
    return _UNIX_EPOCH + timedelta(seconds=seconds)


def check_speed(
    speed: float, slowest_timer_wall_s: float, *, span_market_s: float, timer: str = "timer"
) -> None:
    """Refuse a speed that the slowest timer on the way cannot follow.

    `span_market_s` is the shortest span of market time that must be met; it takes
    `span_market_s / speed` wall seconds, and a timer that ticks every
    `slowest_timer_wall_s` wall seconds (a poll, a whole-second register) must fit in it.

    Raises: ConfigError naming the timer and the highest speed it can follow.
    """
    if not (math.isfinite(speed) and speed > 0):
        msg = f"speed must be a number above 0, not {speed}: use 1 for real time"
        raise ConfigError(msg)
    highest = span_market_s / slowest_timer_wall_s
    if speed > highest:
        msg = (
            f"speed {speed:g} is too high: {span_market_s:g} market seconds would pass in "
            f"{span_market_s / speed:.2f} s, and {timer} needs {slowest_timer_wall_s:g} s; "
            f"use --speed {math.floor(highest * 100) / 100:g} or less"
        )
        raise ConfigError(msg)
