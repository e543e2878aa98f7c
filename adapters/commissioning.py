"""What a safe test needs of a device, whatever it speaks: a port and its values. No I/O.

The test itself (`gateway/edge`) knows no registers: it asks a bench what stands in them, tells
it what to write, and compares. A device with another register map needs another bench only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

Restart = Literal["enable", "value", "timer"]
"""Which point is written again to restart a device's own timer."""
RESTARTS: tuple[Restart, ...] = ("enable", "value", "timer")
"""In the order in which they are tried."""


class Nameplate(msgspec.Struct, frozen=True):
    """What the device says it is."""

    manufacturer: str
    model: str
    serial: str
    version: str = ""
    """Of its firmware; a test is worth something for this version only."""


class Rating(msgspec.Struct, frozen=True):
    """Most power either way, kW, both positive."""

    inject_kw: float
    absorb_kw: float


class Sample(msgspec.Struct, frozen=True):
    """One measurement."""

    power_kw: float
    """Injection positive."""
    soc_percent: float | None = None
    """None where it has no storage, or does not say."""


class Standing(msgspec.Struct, frozen=True):
    """What the control registers say."""

    active: bool
    power_kw: float | None
    left_s: float | None
    """Seconds left on the device's own timer; None where it does not tell."""
    step_kw: float = 0.0
    """Kilowatts between two values that its registers can hold."""


class Write(msgspec.Struct, frozen=True):
    """One write request."""

    point: str
    address: int
    words: tuple[int, ...]
    value: float | None = None
    """What the registers stand for, scaled; None where they are what stood there before."""


class Offered(msgspec.Struct, frozen=True):
    """The control under test."""

    control: str
    kind: Literal["setpoint", "limit"]
    timer: bool
    """Whether it has a register for a revert time."""
    beats: bool = False
    """Whether the device takes a controller's heartbeat."""
    storage: bool = False


class Bench(Protocol):
    """One device, one of its controls. Every call may raise FlexwayError: no answer, or a no."""

    offered: Offered

    async def nameplate(self) -> Nameplate:
        """Who it is, as it says now."""

    async def rating(self) -> Rating | None:
        """What it says it can do; None where it does not."""

    async def obstacle(self) -> str:
        """Why it cannot follow now (off, faulty, in local control), or nothing."""

    async def sample(self) -> Sample:
        """What it measures now."""

    async def standing(self) -> Standing:
        """What its control registers say now."""

    def start(self, power_kw: float, timer_s: int) -> Mapping[str, float]:
        """Points that put a power in force, in order; `timer_s`: its own timer, 0 = leave it."""

    def renew(self, on: Restart, power_kw: float, timer_s: int) -> Mapping[str, float]:
        """The one point that may restart the timer."""

    def stop(self) -> Mapping[str, float]:
        """Points that return it to its own behaviour."""

    async def encode(self, points: Mapping[str, float]) -> tuple[Write, ...]:
        """Points as they would be written now; nothing is written."""

    async def registers(self, places: Sequence[Write]) -> tuple[Write, ...]:
        """What stands at the places of some writes now."""

    async def send(self, writes: Sequence[Write]) -> None:
        """Write, one request each, to the device whose identity was checked and to no other."""

    async def beat(self) -> None:
        """Count the controller's heartbeat up by one."""

    def reconnect(self) -> None:
        """Forget the connection and every back-off: the next call makes a new one."""
