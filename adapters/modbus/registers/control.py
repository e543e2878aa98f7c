"""How a device is driven by its register map: what is written, in which order, how it reads back.

A write is timer, value and direction, enable. A refresh touches only what restarts the lease. A
power is rounded towards zero to what the value's register holds: never more than was asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from adapters.modbus.control import InForce, whole_seconds
from adapters.modbus.driven import DrivenUnit
from adapters.modbus.heartbeat import Heartbeat
from adapters.modbus.registers.codec import Value, step
from adapters.modbus.registers.definition import Enable, MapControl, RegisterError, RegisterMap

OF_A_MAP: Final = 0
"""Stands for a model's number where there are no models."""
_BEATS: Final = 0x8000
"""A counter begins again here, whatever its type: it fits a signed register as well."""
_ROUNDING: Final = 1e-6
_KW: Final = {"W": 1000.0, "kW": 1.0}
"""Units of power per kilowatt."""


class RegisterControl:
    """One control of a register map; satisfies the Control protocol."""

    model = OF_A_MAP
    reference: tuple[int, ...] = (OF_A_MAP,)

    def __init__(self, device: RegisterMap, control: MapControl, *, phases: int) -> None:
        """`phases`: of a value in amperes, how many carry the power."""
        self.control = control
        self._value = device.points[control.value.point]
        self._full_per_kw = 0.0
        if control.value.full is not None:
            self._full_per_kw = _KW[device.points[control.value.full].unit]
        self._phases = phases
        self._full_kw: float | None = None
        self._copies: dict[str, float] = {}
        self._asked_kw: float | None = None
        self._shown: float | None = None
        """What the value's point said last."""
        self._shown_mode: Value = None
        """What the enable point said last."""
        self._idled: bool | None = None
        """Whether it was stopped by us; None after a start, when a stop may still be ours."""

    def learn(self, models: Mapping[int, Mapping[str, Value]]) -> None:
        """What 100 % is, and what a release returns to."""
        self._take_in(models.get(OF_A_MAP, {}))

    def start(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """Points to write, in order.

        RegisterError where the device cannot hold the power, or does not say now what a release
        would return it to.
        """
        control, number = self.control, self._number(power_kw)
        for write in control.release:
            self._released(write.value, write.copy_of)
        writes: dict[str, float] = {}
        if control.lease.kind == "timer" and control.lease.point is not None:
            writes[control.lease.point] = min(
                whole_seconds(lease_wall_s), control.lease.longest_s
            )  # fmt: skip
        writes |= self._value_and_direction(power_kw, number)
        enable = control.enable
        if enable is not None:
            writes[enable.point] = self._mode(enable, number)
        self._asked_kw = power_kw
        return writes

    def _mode(self, enable: Enable, number: float) -> int:
        """What the enable point is told; RegisterError where it would start what others stopped."""
        stopped = self._stopped_by_others(enable)
        if number or enable.idle is None:
            if stopped:
                raise RegisterError(f"{enable.point} says that it was stopped, and not by us: "
                                    "a limit starts nothing")  # fmt: skip
            self._idled = False
            return enable.active
        self._idled = self._idled if stopped else True
        return enable.idle

    def _stopped_by_others(self, enable: Enable) -> bool:
        """Of a mode that is the user's as well: whether it shows a stop that is not ours."""
        shared = enable.active == enable.released and enable.idle is not None
        return shared and self._shown_mode == enable.idle and self._idled is not True

    def _value_and_direction(self, power_kw: float, number: float) -> dict[str, float]:
        """The value, then its direction.

        Where the number grows the direction goes first: between the two writes the device is
        then never at more than it was told before or is told now.
        """
        value, direction = self.control.value, self.control.direction
        writes: dict[str, float] = {}
        # A device whose smallest number is not 0 is stopped by its mode, and keeps the number.
        if number or not value.least:
            writes[value.point] = abs(number) if value.magnitude else number
        if direction is None:
            return writes
        way = direction.injects if power_kw > 0 else direction.consumes
        way = way if number else direction.idle
        grows = self._shown is not None and abs(number) > abs(self._shown)
        return {direction.point: way, **writes} if grows else {**writes, direction.point: way}

    def refresh(self, power_kw: float, lease_wall_s: float) -> dict[str, float]:
        """What restarts the lease; nothing where nothing does."""
        started, name = self.start(power_kw, lease_wall_s), self.control.restarts
        if name is None:
            return {}
        if name not in started:  # it stands still: its mode is what was written last
            name = list(started)[-1]
        return {name: started[name]}

    def stop(self) -> dict[str, float]:
        """Back to the device's own behaviour."""
        self._asked_kw = None
        writes = {write.point: self._released(write.value, write.copy_of)
                  for write in self.control.release}  # fmt: skip
        enable = self.control.enable
        if enable is not None and not (self._idled is False and self._stopped_by_others(enable)):
            writes[enable.point] = enable.released
        return writes

    def parse(self, points: Mapping[str, Value]) -> InForce:
        """What the device's registers say."""
        self._take_in(points)
        power, remaining = self._power(points), self.control.lease.remaining
        left = points.get(remaining) if remaining is not None else None
        return InForce(
            active=self._active(points, power),
            power_kw=power,
            lease_wall_s=float(left) if isinstance(left, int | float) else None,
            step_kw=self._step_kw(),
        )

    def _take_in(self, points: Mapping[str, Value]) -> None:
        shown = points.get(self.control.value.point)
        self._shown = shown if isinstance(shown, int | float) else None
        enable = self.control.enable
        self._shown_mode = points.get(enable.point) if enable is not None else None
        if enable is not None and self._asked_kw is None and self._shown_mode == enable.released:
            self._idled = False
        full = points.get(self.control.value.full or "")
        if isinstance(full, int | float) and full > 0:
            self._full_kw = full / self._full_per_kw
        for write in self.control.release:
            value = points.get(write.copy_of or "")
            if write.copy_of is not None and isinstance(value, int | float):
                self._copies[write.copy_of] = value

    def _per_kw(self) -> float | None:
        """Of the value's unit; None while it is not known what 100 % is."""
        unit, value = self._value.unit, self.control.value
        if unit == "A":
            return 1000.0 / (value.volts * self._phases)
        if unit == "%":
            return 100.0 / self._full_kw if self._full_kw is not None else None
        return _KW[unit]

    def _step_kw(self) -> float:
        per_kw = self._per_kw()
        return step(self._value) / per_kw if per_kw else 0.0

    def _number(self, power_kw: float) -> float:
        """What the value's point is told, with its sign, towards zero."""
        value, per_kw = self.control.value, self._per_kw()
        if per_kw is None:
            raise RegisterError(f"{value.full} does not say what 100 % is")
        number, size = value.sign * power_kw * per_kw, step(self._value)
        if size:
            number = math.copysign(math.floor(abs(number) / size + _ROUNDING) * size, number)
        if number < 0 and value.magnitude and self.control.direction is None:
            way = "consume" if value.sign > 0 else "inject"
            raise RegisterError(f"{power_kw:g} kW: this control cannot {way}")
        if 0 < abs(number) < value.least - _ROUNDING:
            raise RegisterError(
                f"{power_kw:g} kW is {abs(number):g} {self._value.unit}, and {value.least:g} is "
                "the least besides 0: make min_on_kw of the profile that power"
            )
        if value.most is not None and abs(number) > value.most + _ROUNDING:
            raise RegisterError(
                f"{power_kw:g} kW is {abs(number):g} {self._value.unit}, and {value.most:g} is the "
                "most: make the profile's min_kw and max_kw what the device has"
            )
        return number or 0.0

    def _power(self, points: Mapping[str, Value]) -> float | None:
        enable, direction, value = self.control.enable, self.control.direction, self.control.value
        if (
            enable is not None
            and enable.idle is not None
            and points.get(enable.point) == enable.idle
        ):
            return 0.0
        number, per_kw = points.get(value.point), self._per_kw()
        if not isinstance(number, int | float) or not per_kw:
            return None
        if direction is None:
            return value.sign * number / per_kw or 0.0
        ways: dict[Value, float] = {
            direction.idle: 0.0, direction.injects: 1.0, direction.consumes: -1.0,
        }  # fmt: skip
        way = ways.get(points.get(direction.point))
        return None if way is None else way * abs(number) / per_kw or 0.0

    def _active(self, points: Mapping[str, Value], power_kw: float | None) -> bool:
        """Whether it holds what it was told.

        Where its mode says so, that counts. Else it does unless all is as a release leaves it;
        and if that is just what was asked for, it does as well.
        """
        enable = self.control.enable
        if enable is not None and enable.released not in {enable.active, enable.idle}:
            return points.get(enable.point) in {enable.active, enable.idle}
        released = (
            enable is None or points.get(enable.point) == enable.released
            or (self._idled is False and self._stopped_by_others(enable))
        )  # fmt: skip
        for write in self.control.release:
            try:
                target = self._released(write.value, write.copy_of)
            except RegisterError:
                continue
            released = released and points.get(write.point) == target
        near = self._asked_kw is not None and power_kw is not None and (
            abs(power_kw - self._asked_kw) <= self._step_kw() + _ROUNDING
        )  # fmt: skip
        return not released or near

    def _released(self, value: float | None, copy_of: str | None) -> float:
        if value is not None:
            return value
        if copy_of not in self._copies:
            raise RegisterError(f"{copy_of} does not say what a release returns to")
        return self._copies[copy_of]


def heartbeat_of(
    unit: DrivenUnit, control: RegisterControl, *, monotonic: Callable[[], float]
) -> Heartbeat:
    """The heartbeat of a control; RegisterError where it has none."""
    lease = control.control.lease
    if lease.kind != "heartbeat" or lease.point is None:
        raise RegisterError("the device profile's control has no heartbeat: choose another lease")
    return Heartbeat(
        unit, monotonic=monotonic, model=OF_A_MAP, point=lease.point, wrap=_BEATS,
        every_s=lease.every_s,
    )  # fmt: skip
