"""All devices of a virtual day, stepped minute by minute, and the way to and from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from gateway.lockstep.clock import LockstepClock
from gateway.lockstep.pipe import DevicePipe
from gateway.store.engine import from_us, to_us

_MINUTE: Final = timedelta(minutes=1)
_KEPT: Final = frozenset({"mqtt", "openadr", "webhook"})
"""Protocols in which a broker or the device itself keeps what the gateway did not take."""
Frame = Mapping[str, Any]


class Taker(Protocol):
    """One protocol's end at the gateway."""

    async def arrived(self, frames: Sequence[Frame]) -> None:
        """Take what devices of the protocol sent in one minute, in order."""


class Field:
    """Steps the devices and hands on what they send; outlives the gateway's restarts."""

    def __init__(self, pipe: DevicePipe, clock: LockstepClock) -> None:
        self.pipe = pipe
        self._clock = clock
        self._takers: dict[str, Taker] = {}
        self._waiting: dict[str, list[Frame]] = {}
        hello = pipe.ask("hello")
        self.start, self.end = from_us(hello["start_us"]), from_us(hello["end_us"])
        self._stepped = self.start

    def attach(self, protocol: str, taker: Taker) -> None:
        """The gateway's adapter of a protocol is there."""
        self._takers[protocol] = taker

    def detach(self, protocol: str, taker: Taker) -> None:
        """It is gone."""
        if self._takers.get(protocol) is taker:
            del self._takers[protocol]

    async def run_until(self, until: datetime) -> None:
        """Let market time pass, stepping the devices at every full minute."""
        while (following := self._stepped + _MINUTE) <= min(until, self.end):
            await self._clock.sleep_until(following)
            answer = self.pipe.ask("step", until_us=to_us(following))
            self._stepped = following
            await self._deliver(answer["frames"])
        await self._clock.sleep_until(until)

    def uplink(self, *, up: bool) -> None:
        """Cut the link between the gateway and its broker, or mend it."""
        self.pipe.ask("link", protocol="mqtt", up=up)

    async def _deliver(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            protocol = frame.get("protocol", "mqtt")
            self._waiting.setdefault(protocol, []).append(frame)
        for protocol in sorted(self._waiting):
            waiting = self._waiting[protocol]
            taker = self._takers.get(protocol)
            if taker is not None:
                self._waiting[protocol] = []
                await taker.arrived(waiting)
            elif protocol not in _KEPT:
                self._waiting[protocol] = []
