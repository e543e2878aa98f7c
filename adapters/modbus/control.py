"""How SunSpec units are driven: which points, in which order, and how they read back.

A write is timer, then value, then enable. A refresh touches only the point that restarts
the unit's timer, because some units wear their flash with every write.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from adapters.modbus.sunspec import Value
from marketplace_core.dispatch.profile import DeviceProfile

RestartsOn = Literal["timer", "value", "enable"]


class InForce(msgspec.Struct, frozen=True):
    """What a unit's control registers say."""

    active: bool
    power_kw: float | None
    lease_wall_s: float | None


class Control(Protocol):
    """One way to drive a unit."""

    model: int

    def start(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """Points to write, in order, to put a setpoint in force."""

    def refresh(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """Points to write to restart its timer."""

    def stop(self) -> dict[str, float]:
        """Points to write to return to the unit's own behaviour."""

    def parse(self, points: Mapping[str, Value]) -> InForce:
        """What is in force."""


class ActivePower:
    """Model 704, WSet: a setpoint with a revert timer and a revert value."""

    model = 704

    def __init__(self, profile: DeviceProfile, restarts_on: RestartsOn) -> None:
        self._fallback_w = (profile.fallback_kw or 0.0) * 1000.0
        # After the timer: hold the declared fallback, or go back to the unit's own behaviour.
        self._hold_fallback = 0 if profile.fallback_kw is None else 1
        self._restarts_on = restarts_on

    def start(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """Timer and revert value first, then the setpoint, then enable."""
        return {
            "WSetRvrtTms": _seconds(lease_wall_s),
            "WSetRvrt": self._fallback_w,
            "WSetEnaRvrt": self._hold_fallback,
            "WSetMod": 1,  # watts, not per cent
            "WSet": power_kw * 1000.0,
            "WSetEna": 1,
        }

    def refresh(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """The one point that restarts the timer."""
        if self._restarts_on == "timer":
            return {"WSetRvrtTms": _seconds(lease_wall_s)}
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
        )


class PowerLimit:
    """Model 123, WMaxLimPct: a ceiling in per cent of the rating, with a revert timer.

    A limit is released by disabling it: writing 100 % leaves some units limited.
    """

    model = 123

    def __init__(self, profile: DeviceProfile, restarts_on: RestartsOn) -> None:
        self._rating_kw = profile.max_kw
        self._restarts_on = restarts_on

    def start(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """Timer first, then the limit, then enable."""
        return {
            "WMaxLimPct_RvrtTms": min(_seconds(lease_wall_s), 0xFFFE),
            "WMaxLimPct": self._percent(power_kw),
            "WMaxLim_Ena": 1,
        }

    def refresh(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """The one point that restarts the timer."""
        started = self.start(power_kw, lease_wall_s)
        names = {"timer": "WMaxLimPct_RvrtTms", "value": "WMaxLimPct", "enable": "WMaxLim_Ena"}
        name = names[self._restarts_on]
        return {name: started[name]}

    def stop(self) -> dict[str, float]:
        """Disable."""
        return {"WMaxLim_Ena": 0}

    def parse(self, points: Mapping[str, Value]) -> InForce:
        """WMaxLim_Ena and WMaxLimPct; this model does not tell the remaining time."""
        percent = points.get("WMaxLimPct")
        power = percent / 100.0 * self._rating_kw if isinstance(percent, int | float) else None
        return InForce(points.get("WMaxLim_Ena") == 1, power, None)

    def _percent(self, power_kw: float) -> float:
        return 100.0 * power_kw / self._rating_kw


def _seconds(lease_wall_s: float) -> int:
    """Whole seconds for a timer register: rounded up, and 0 would mean "never"."""
    return max(1, math.ceil(lease_wall_s))
