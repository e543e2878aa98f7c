"""How SunSpec units are driven: which points, in which order, and how they read back.

A write is timer, then value, then enable. A refresh touches only the point that restarts
the unit's timer, because some units wear their flash with every write. A control is released
by disabling it: a limit of 100 % leaves some units limited.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, Protocol

import msgspec

from adapters.modbus.sunspec import SCALES, SunSpecError, Value
from marketplace_core.dispatch.profile import DeviceProfile

RestartsOn = Literal["timer", "value", "enable"]
LONGEST_16_S: Final = 0xFFFE
"""Longest time that a timer of one register holds; 0xFFFF means "not implemented"."""


class InForce(msgspec.Struct, frozen=True):
    """What a unit's control registers say."""

    active: bool
    power_kw: float | None
    lease_wall_s: float | None
    """Seconds left on its timer; None where it does not tell."""
    step_kw: float = 0.0
    """Kilowatts between two values that its registers can hold."""


class Control(Protocol):
    """One way to drive a unit."""

    model: int
    reference: tuple[int, ...]
    """Models that it needs to know before it can be used, such as what 100 % is."""

    def learn(self, models: Mapping[int, Mapping[str, Value]]) -> None:
        """Take in the unit's own reference, before anything is written on a new connection.

        `models`: points of those of `reference` that the unit has.
        """

    def start(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """Points to write, in order, to put a setpoint in force.

        SunSpecError when it cannot be had on such a unit.
        """

    def refresh(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """Points to write to restart its timer."""

    def stop(self) -> dict[str, float]:
        """Points to write to return to the unit's own behaviour."""

    def parse(self, points: Mapping[str, Value]) -> InForce:
        """What is in force."""


class ActivePower:
    """Model 704, WSet: a setpoint with a revert timer and a revert value."""

    model = 704
    reference: tuple[int, ...] = ()

    def __init__(self, profile: DeviceProfile, restarts_on: RestartsOn) -> None:
        self._fallback_w = (profile.fallback_kw or 0.0) * 1000.0
        # After the timer: hold the declared fallback, or go back to the unit's own behaviour.
        self._hold_fallback = 0 if profile.fallback_kw is None else 1
        self._restarts_on = restarts_on

    def learn(self, models: Mapping[int, Mapping[str, Value]]) -> None:
        """Watts need no reference."""

    def start(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """Timer and revert value first, then the setpoint, then enable."""
        return {
            "WSetRvrtTms": whole_seconds(lease_wall_s),
            "WSetRvrt": self._fallback_w,
            "WSetEnaRvrt": self._hold_fallback,
            "WSetMod": 1,  # watts, not per cent
            "WSet": power_kw * 1000.0,
            "WSetEna": 1,
        }

    def refresh(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """The one point that restarts the timer."""
        if self._restarts_on == "timer":
            return {"WSetRvrtTms": whole_seconds(lease_wall_s)}
        if self._restarts_on == "value":
            return {"WSet": power_kw * 1000.0}
        return {"WSetEna": 1}

    def stop(self) -> dict[str, float]:
        """Disable."""
        return {"WSetEna": 0}

    def parse(self, points: Mapping[str, Value]) -> InForce:
        """WSetEna, WSet and the remaining seconds."""
        power, left = points.get("WSet"), points.get("WSetRvrtRem")
        return InForce(
            active=points.get("WSetEna") == 1,
            power_kw=power / 1000.0 if isinstance(power, int | float) else None,
            lease_wall_s=float(left) if isinstance(left, int | float) else None,
            step_kw=step(points.get("WSet_SF")) / 1000.0,
        )


class _LimitPoints(msgspec.Struct, frozen=True):
    """How a model names the points of its ceiling."""

    model: int
    timer: str
    longest_s: int
    enable: str
    remaining: str
    revert: tuple[str, str] | None
    """Value and enable that hold once the timer has run out, where the model has them."""
    ratings: tuple[tuple[int, str], ...]
    """Where the unit says what 100 % is, the setting before the nameplate."""


LIMIT_123: Final = _LimitPoints(
    model=123, timer="WMaxLimPct_RvrtTms", longest_s=LONGEST_16_S, enable="WMaxLim_Ena",
    remaining="", revert=None, ratings=((121, "WMax"), (120, "WRtg")),
)  # fmt: skip
LIMIT_704: Final = _LimitPoints(
    model=704, timer="WMaxLimPctRvrtTms", longest_s=0xFFFF_FFFE, enable="WMaxLimPctEna",
    remaining="WMaxLimPctRvrtRem", revert=("WMaxLimPctRvrt", "WMaxLimPctEnaRvrt"),
    ratings=((702, "WMax"), (702, "WMaxRtg")),
)  # fmt: skip
_VALUE: Final = "WMaxLimPct"


class PowerLimit:
    """WMaxLimPct of model 123 or 704: a ceiling in per cent of the unit's own WMax.

    Where the unit does not say its WMax, the profile's `max_kw` is taken for it.
    """

    def __init__(
        self, profile: DeviceProfile, restarts_on: RestartsOn, points: _LimitPoints = LIMIT_123
    ) -> None:
        self.model = points.model
        self.reference = tuple(dict.fromkeys(model for model, _ in points.ratings))
        self._points = points
        self._fallback_kw = profile.fallback_kw
        self._rating_kw: float = profile.max_kw
        self._restarts_on = restarts_on

    def learn(self, models: Mapping[int, Mapping[str, Value]]) -> None:
        """What 100 % is."""
        for model, name in self._points.ratings:
            watts = models.get(model, {}).get(name)
            if isinstance(watts, int | float) and watts > 0:
                self._rating_kw = watts / 1000.0
                return

    def start(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """Timer and what follows it first, then the limit, then enable."""
        points = self._points
        writes: dict[str, float] = {
            points.timer: min(whole_seconds(lease_wall_s), points.longest_s)
        }
        if points.revert is not None:
            value, enable = points.revert
            if self._fallback_kw is not None:
                writes[value] = self._percent(self._fallback_kw)
            writes[enable] = 0 if self._fallback_kw is None else 1
        return {**writes, _VALUE: self._percent(power_kw), points.enable: 1}

    def refresh(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """The one point that restarts the timer."""
        started = self.start(power_kw, lease_wall_s)
        points = self._points
        name = {"timer": points.timer, "value": _VALUE, "enable": points.enable}[self._restarts_on]
        return {name: started[name]}

    def stop(self) -> dict[str, float]:
        """Disable."""
        return {self._points.enable: 0}

    def parse(self, points: Mapping[str, Value]) -> InForce:
        """Enabled, the limit, and the remaining seconds where the model has them (704)."""
        percent, left = points.get(_VALUE), points.get(self._points.remaining)
        power = percent / 100.0 * self._rating_kw if isinstance(percent, int | float) else None
        return InForce(
            active=points.get(self._points.enable) == 1,
            power_kw=power,
            lease_wall_s=float(left) if isinstance(left, int | float) else None,
            step_kw=step(points.get("WMaxLimPct_SF")) / 100.0 * self._rating_kw,
        )

    def _percent(self, power_kw: float) -> float:
        percent = 100.0 * power_kw / self._rating_kw
        if not 0.0 <= percent <= _FULL:
            raise SunSpecError(
                f"a limit of {power_kw:g} kW is {percent:.1f} % of the unit's {self._rating_kw:g} "
                "kW: it takes 0 to 100 %; make the profile's min_kw and max_kw what the unit has"
            )
        return min(percent, 100.0)


_FULL: Final = 100.001
"""Per cent: a rating that differs in its last bit is the rating."""


def whole_seconds(lease_wall_s: float) -> int:
    """Whole seconds for a timer register: rounded up, and 0 would mean "never"."""
    return max(1, math.ceil(lease_wall_s))


def step(scale: Value) -> float:
    """Between two values of a point with that scale factor; 0.0 where it has none."""
    return 10.0**scale if isinstance(scale, int) and scale in SCALES else 0.0
