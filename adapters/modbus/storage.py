"""Model 124 (basic storage control): limits in per cent of WChaMax, and forcing where allowed.

What the registers mean (model_124.json of the SunSpec Alliance): `StorCtl_Mod` says which of
two limits holds: bit 0 charging, bit 1 discharging. `InWRte` limits charging, `OutWRte`
discharging; of neither a setpoint is made. Some makers take a negative rate as the opposite
of the limit: a charging rate of at most -40 % is a discharge of at least 40 %. Both limits
together, one the negative of the other, then leave one power only. Only where the profile
says that the maker allows it is a negative rate ever written.

The definition counts `OutWRte` in per cent of a WDisChaMax that the model does not have: it is
taken of WChaMax, as `InWRte` is. Reserve (`MinRsvPct`) and `ChaGriSet` (may it charge from the
grid?) are the owner's, and are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from adapters.modbus.control import LONGEST_16_S, InForce, RestartsOn, step, whole_seconds
from adapters.modbus.sunspec import SunSpecError, Value
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile

_CHARGE: Final = 1
_DISCHARGE: Final = 2
_BOTH: Final = _CHARGE | _DISCHARGE
_TIMER: Final = "InOutWRte_RvrtTms"


class StorageRates:
    """Model 124: StorCtl_Mod with InWRte and OutWRte, and their timeout.

    A limit of 0 kW holds the storage still: it may neither charge nor discharge.
    """

    model = 124
    reference: tuple[int, ...] = (124,)

    def __init__(
        self, profile: DeviceProfile, restarts_on: RestartsOn, *, negative_rates: bool = False
    ) -> None:
        """`negative_rates`: the maker takes them; without it nothing can be forced."""
        self._forces = profile.control is ControlKind.SETPOINT
        self._negative_rates = negative_rates
        self._restarts_on = restarts_on
        self._most_kw: float | None = None
        self._out: float | None = None
        """OutWRte as it was read last, per cent."""

    def learn(self, models: Mapping[int, Mapping[str, Value]]) -> None:
        """WChaMax, and the rates that stand there."""
        self._take_in(models.get(self.model, {}))

    def start(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """Timeout, then the rates, then which of them holds."""
        timer = {_TIMER: min(whole_seconds(lease_wall_s), LONGEST_16_S)}
        return {**timer, **self._rates(power_kw), "StorCtl_Mod": self._mode(power_kw)}

    def refresh(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """What restarts the timeout."""
        if self._restarts_on == "value":
            return self._rates(power_kw)
        name = _TIMER if self._restarts_on == "timer" else "StorCtl_Mod"
        return {name: self.start(power_kw, lease_wall_s)[name]}

    def stop(self) -> dict[str, float]:
        """Neither limit holds."""
        return {"StorCtl_Mod": 0}

    def parse(self, points: Mapping[str, Value]) -> InForce:
        """Which limit holds; None for its power where the two do not leave one power."""
        self._take_in(points)
        mode, most = points.get("StorCtl_Mod"), self._most_kw
        held = mode & _BOTH if isinstance(mode, int) else 0
        power = None if most is None else _power(held, points, most)
        size = step(points.get("InOutWRte_SF")) / 100.0 * (most or 0.0)
        return InForce(active=held != 0, power_kw=power, lease_wall_s=None, step_kw=size)

    def _take_in(self, points: Mapping[str, Value]) -> None:
        most, out = points.get("WChaMax"), points.get("OutWRte")
        if isinstance(most, int | float) and most > 0:
            self._most_kw = most / 1000.0
        self._out = out if isinstance(out, int | float) else None

    def _mode(self, power_kw: float) -> int:
        if self._forces or power_kw == 0:
            return _BOTH
        return _DISCHARGE if power_kw > 0 else _CHARGE

    def _rates(self, power_kw: float) -> dict[str, float]:
        percent = self._percent(power_kw)
        if not self._forces:
            both = {"OutWRte": 0.0, "InWRte": 0.0}
            one = {"OutWRte": percent} if power_kw > 0 else {"InWRte": -percent}
            return one if power_kw else both
        # The two leave a window of power. The edge that it moves towards is written first, so
        # that the window is never empty in between.
        rises = self._out is None or percent >= self._out
        out, into = {"OutWRte": percent}, {"InWRte": -percent}
        return {**out, **into} if rises else {**into, **out}

    def _percent(self, power_kw: float) -> float:
        """Per cent of WChaMax, discharging positive."""
        if self._forces and not self._negative_rates:
            raise SunSpecError(
                "model 124 sets limits: a setpoint needs a maker that takes negative rates "
                '(negative_rates = true), or control = "limit" in the profile'
            )
        if self._most_kw is None:
            raise SunSpecError("model 124 shows no WChaMax: its rates are per cent of it")
        percent = 100.0 * power_kw / self._most_kw
        if abs(percent) > 100.001:  # noqa: PLR2004 - per cent, and a last bit
            raise SunSpecError(
                f"{power_kw:g} kW is {percent:.1f} % of the unit's WChaMax of {self._most_kw:g} kW"
            )
        return percent


def _power(held: int, points: Mapping[str, Value], most_kw: float) -> float | None:
    """Kilowatts, discharging positive."""
    out, into = points.get("OutWRte"), points.get("InWRte")
    if held == _DISCHARGE and isinstance(out, int | float):
        return out / 100.0 * most_kw
    if held == _CHARGE and isinstance(into, int | float):
        return -into / 100.0 * most_kw
    if held == _BOTH and isinstance(out, int | float) and isinstance(into, int | float):
        return out / 100.0 * most_kw if out == -into else None
    return None
