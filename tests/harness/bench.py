"""Simulated units whose power follows what they are told, and liars among them; virtual time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from adapters.commissioning import Rating
from adapters.modbus.bench import Place, SunSpecBench
from adapters.modbus.lines import Line
from adapters.modbus.offer import ControlName
from adapters.modbus.wire import load_model
from firmware_sim.servers.modbus import BatteryUnit, InverterUnit
from firmware_sim.servers.modbus_controls import HeartbeatUnit, LimitUnit, StorageUnit
from gateway.edge.plan import Plan, Wanted, choose
from gateway.edge.trial import Progress, Trial
from gateway.edge.watching import Pace

Now = Callable[[], float]
"""Monotonic seconds of a device."""


class TestPace:
    """Time that passes only while the test sleeps: units, their timers and the test share it."""

    __test__ = False

    def __init__(self) -> None:
        self._at = 1000.0
        self._due: list[tuple[float, Callable[[], object]]] = []

    def now(self) -> float:
        return self._at

    async def sleep(self, seconds: float) -> None:
        self._at += seconds
        due = [do for at, do in self._due if at <= self._at]
        self._due = [(at, do) for at, do in self._due if at > self._at]
        for do in due:
            do()
        await asyncio.sleep(0)

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        """Do something so many seconds from now."""
        self._due.append((self._at + seconds, do))


class Battery(BatteryUnit):
    """Idles at its own power, follows `gain` of what it is told, and may lie."""

    own_kw = 0.2
    gain = 1.0
    """Share of a step that its power makes; negative = the wrong way."""
    clamp_kw: float | None = None
    """Most power that it gives, whatever its registers say."""
    soc_kwh = 6.0
    ends = True
    """Whether it does anything when its timer has run out."""
    shows_left = True
    """Whether what is left of its timer counts down."""
    sticks = False
    """Whether its power stays when its registers say that it reverted."""

    def __init__(self, monotonic: Now) -> None:
        super().__init__("bat-1", serial="S1", capacity_kwh=10.0, monotonic=monotonic)
        self._put(1, "Vr", "1.2.3")
        self._power_kw = self.own_kw

    def refresh(self) -> None:
        """Bring timers and power up to date."""
        if self.ends:
            super().refresh()
        elif self._deadline is not None:
            self._put(704, "WSetRvrtRem", max(0, round(self._deadline - self._monotonic())))
        if self._deadline is not None and not self.shows_left:
            self._put(704, "WSetRvrtRem", self._get(704, "WSetRvrtTms"))
        if self._get(704, "WSetEna") == 1:
            told = self._get(704, "WSet") / 1000.0
            self._power_kw = self.own_kw + self.gain * (told - self.own_kw)
            if self.clamp_kw is not None:
                self._power_kw = min(self._power_kw, self.clamp_kw)
        elif not self.sticks:
            self._power_kw = self.own_kw
        self.publish(power_kw=self._power_kw, soc_kwh=self.soc_kwh)


class Restarting(Battery):
    """Its timer starts when it is enabled, and again with one other point only, or none."""

    def __init__(self, monotonic: Now, point: str) -> None:
        super().__init__(monotonic)
        self._point = point

    def written(self, address: int) -> None:
        """The enable point again gives no new lease."""
        before = self._deadline
        super().written(address)
        points, offset = load_model(704).points, address - self._address[704]
        if offset == points["WSetEna"].offset and before is not None and self._deadline is not None:
            self._deadline = before
        if self._point and offset == points[self._point].offset and before is not None:
            self._deadline = self._monotonic() + self._get(704, "WSetRvrtTms")


class Inverter(InverterUnit):
    """Makes what the sun gives, up to its limit."""

    sun_kw = 3.0

    def __init__(self, monotonic: Now) -> None:
        super().__init__("pv-1", serial="S1", rated_kw=5.0, monotonic=monotonic)

    def refresh(self) -> None:
        """Bring timer and power up to date."""
        super().refresh()
        limit = self._rated_kw
        if self._get(123, "WMaxLim_Ena") == 1:
            limit = self._get(123, "WMaxLimPct") / 100.0 * self._rated_kw
        self.publish(power_kw=min(self.sun_kw, limit))


class Limited(LimitUnit):
    """The same with model 704."""

    sun_kw = 3.0

    def __init__(self, monotonic: Now) -> None:
        super().__init__("pv-1", serial="S1", rated_kw=5.0, monotonic=monotonic)

    def refresh(self) -> None:
        """Bring timer and power up to date."""
        super().refresh()
        limit = self._rated_kw
        if self._get(704, "WMaxLimPctEna") == 1:
            limit = self._get(704, "WMaxLimPct") / 1000.0 * self._rated_kw
        self._put(701, "W", 1000.0 * min(self.sun_kw, limit))


class Storage(StorageUnit):
    """Discharges as far as its window lets it."""

    own_kw = 2.0

    def __init__(self, monotonic: Now, *, negative_rates: bool = False) -> None:
        super().__init__(
            "bat-1", serial="S1", most_kw=8.0, negative_rates=negative_rates, monotonic=monotonic
        )

    def read(self, address: int, count: int) -> list[int] | None:
        """Bring power up to date."""
        low, high = self.window_kw()
        self.publish(power_kw=max(low, min(high, self.own_kw)), soc_percent=60.0)
        return super().read(address, count)


class Hearted(HeartbeatUnit):
    """Holds what it is told while a heart beats, and falls back to idling without."""

    def __init__(self, monotonic: Now) -> None:
        super().__init__(
            "bat-1", serial="S1", fallback_kw=-0.5, patience_s=8.0, monotonic=monotonic
        )

    def read(self, address: int, count: int) -> list[int] | None:
        """Bring power up to date."""
        told = self.commanded_kw()
        self._put(701, "W", 1000.0 * (0.2 if told is None else told))
        return super().read(address, count)


def bench_on(port: int, *, timeout_s: float = 5.0, **keys: Any) -> SunSpecBench:
    place = Place(line=Line(host="127.0.0.1", port=port), unit=1, timeout_s=timeout_s, **keys)
    return SunSpecBench(place, monotonic=time.monotonic)


async def planned(
    bench: SunSpecBench, control: ControlName, *, rating: Rating | None = None, **wanted: Any
) -> Plan:
    found = await bench.meet()
    rated = rating or await bench.rating() or Rating(5.0, 5.0)
    await bench.take(control, found, rated)
    plan = choose(
        bench.offered, rated, [await bench.sample() for _ in range(3)], await bench.standing(),
        Wanted(**{"timer_s": 10, "heartbeat_wait_s": 20.0, "restore_s": 60.0, **wanted}),
    )  # fmt: skip
    assert isinstance(plan, Plan), plan
    return plan


def trial(bench: SunSpecBench, plan: Plan, pace: Pace, told: list[Progress] | None = None) -> Trial:
    return Trial(bench, plan, pace, (told if told is not None else []).append)
