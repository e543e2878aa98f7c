"""Faults on purpose: drawn from the seed, and how two of them act on a command.

Every day has one of each kind as far as its devices allow, never two on one device, at times
when somebody who watches can see them, and never around an incident of the day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
import numpy as np

from firmware_sim.scenario import Incident, MarketDay, MarketEvent
from firmware_sim.world import Fault
from marketplace_core.units import Direction
from marketplace_core.verification.flags import FlagKind

_MINUTE = timedelta(minutes=1)
_CLEAR = timedelta(minutes=8)
"""Distance that a fault keeps from incidents."""
_CLAMP_SHARE = 0.4
_NOTICED = timedelta(hours=1)
"""A site answers an event that it is told of up to this long before it starts."""
_TRIES = 1000


class Exposed(msgspec.Struct, frozen=True, kw_only=True):
    """Devices at which a fault can be seen."""

    batteries: tuple[str, ...]
    chargers: Mapping[str, tuple[str, ...]]
    """By name of the event: chargers with a car that can be driven throughout."""
    sites: tuple[str, ...]
    """Car parks whose bids can win."""


def draw(
    market: MarketDay, exposed: Exposed, incidents: Sequence[Incident], rng: np.random.Generator
) -> tuple[Fault, ...]:
    """The faults of one day, the same for the same stream of randomness."""
    draws = _Draw(market, exposed, incidents, rng)
    return tuple(sorted(draws.all(), key=lambda one: (one.at, one.device)))


def draw_incidents(market: MarketDay, rng: np.random.Generator) -> tuple[Incident, ...]:
    """The uplink is lost for two minutes in the DOWN event; the gateway dies in the UP event."""
    down = market.event(Direction.DOWN).interval.start
    up = market.event(Direction.UP).interval.start
    lost = down + int(rng.integers(30, 75)) * _MINUTE
    return (
        Incident(kind="uplink_lost", at=lost, until=lost + 2 * _MINUTE),
        Incident(kind="gateway_killed", at=up + int(rng.integers(40, 75)) * _MINUTE),
    )


def acted_kw(faults: Iterable[Fault], at: datetime, commanded_kw: float | None) -> float | None:
    """What a device does of what it was told (and reads back); `faults` are its own."""
    for fault in faults:
        if commanded_kw is not None and fault.active(at):
            if fault.kind is FlagKind.IGNORES:
                return None
            if fault.kind is FlagKind.CLAMPS:
                return fault.share * commanded_kw
    return commanded_kw


def by_device(faults: Iterable[Fault]) -> dict[str, tuple[Fault, ...]]:
    """Faults of each device that has any."""
    found: dict[str, tuple[Fault, ...]] = {}
    for fault in faults:
        found[fault.device] = (*found.get(fault.device, ()), fault)
    return found


class _Draw:
    def __init__(
        self,
        market: MarketDay,
        exposed: Exposed,
        incidents: Sequence[Incident],
        rng: np.random.Generator,
    ) -> None:
        self._events = market.events
        self._up = market.event(Direction.UP)
        self._exposed = exposed
        self._rng = rng
        self._spans = [(one.at - _CLEAR, (one.until or one.at) + _CLEAR) for one in incidents]
        self._used: set[str] = set()

    def all(self) -> list[Fault]:
        up = self._up.interval
        found = [
            self._fault(FlagKind.IGNORES, self._exposed.batteries, up.start, up.end),
            self._fault(
                FlagKind.CLAMPS, self._exposed.batteries, up.start, up.end, share=_CLAMP_SHARE
            ),
            self._fault(
                FlagKind.OPTS_OUT, self._exposed.sites, up.start - _NOTICED, up.end
            ),
            self._silence(FlagKind.TIMES_OUT, (15, 25)),
            self._silence(FlagKind.OFFLINE, (20, 40)),
            self._messages(FlagKind.MALFORMED, count=3),
            self._messages(FlagKind.REPLAYS, count=2),
        ]  # fmt: skip
        return [one for one in found if one is not None]

    def _silence(self, kind: FlagKind, minutes: tuple[int, int]) -> Fault | None:
        event = self._event()
        length = int(self._rng.integers(minutes[0], minutes[1] + 1)) * _MINUTE
        at = self._moment(event, length)
        offline = kind is FlagKind.OFFLINE
        devices = self._chargers(event) if offline else self._exposed.batteries
        return self._fault(kind, devices, at, at + length)

    def _messages(self, kind: FlagKind, count: int) -> Fault | None:
        event = self._event()
        gaps = [int(gap) for gap in self._rng.integers(3, 7, size=count - 1)]
        at = self._moment(event, (sum(gaps) + 1) * _MINUTE)
        moments = [at]
        for gap in gaps:
            moments.append(moments[-1] + gap * _MINUTE)
        devices = self._chargers(event)
        return self._fault(kind, devices, at, moments[-1] + _MINUTE, moments=tuple(moments))

    def _event(self) -> MarketEvent:
        return self._events[int(self._rng.integers(len(self._events)))]

    def _chargers(self, event: MarketEvent) -> tuple[str, ...]:
        """Chargers that take part in the event; any, when none is left."""
        taking_part = self._exposed.chargers.get(event.name, ())
        every = tuple(name for names in self._exposed.chargers.values() for name in names)
        return tuple(one for one in taking_part if one not in self._used) or every

    def _moment(self, event: MarketEvent, length: timedelta) -> datetime:
        """A minute inside an event after which `length` still fits, clear of incidents."""
        span = event.interval
        latest = (span.duration - length) // _MINUTE - 2
        at = span.start
        for _ in range(_TRIES):
            at = span.start + int(self._rng.integers(10, max(11, latest))) * _MINUTE
            if not any(at < end and start < at + length for start, end in self._spans):
                break
        return at

    def _fault(
        self,
        kind: FlagKind,
        devices: Sequence[str],
        at: datetime,
        until: datetime,
        *,
        moments: tuple[datetime, ...] = (),
        share: float = 0.0,
    ) -> Fault | None:
        free = sorted(set(devices) - self._used)
        if not free:
            return None
        device = free[int(self._rng.integers(len(free)))]
        self._used.add(device)
        return Fault(device=device, kind=kind, at=at, until=until, moments=moments, share=share)
