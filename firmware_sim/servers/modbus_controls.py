"""Simulated units for the other SunSpec controls: 704 WMaxLimPct, 124 storage, 715 heartbeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from adapters.modbus.wire import load_model
from firmware_sim.servers.modbus import Log, Unit

_CHARGE: Final = 1
_DISCHARGE: Final = 2
_RATE_SCALE: Final = -2
"""Model 124's rates are hundredths of a per cent."""
_LIMIT_SCALE: Final = -1
"""Model 704's limit is in tenths of a per cent."""


class Timed(Unit):
    """A unit with one control whose timer is started by one point."""

    control: int
    starts: str
    """The point whose write starts the timer."""

    def __init__(
        self, device_id: str, models: tuple[int, ...], *, serial: str,
        monotonic: Callable[[], float] = time.monotonic, log: Log = lambda _entry: None,
    ) -> None:  # fmt: skip
        super().__init__(device_id, models, serial=serial, monotonic=monotonic, log=log)
        self._runs()
        self._deadline: float | None = None

    def controls(self) -> range:
        """The control model."""
        return self._range(self.control)

    def refresh(self) -> None:
        """Revert when the timer has run out."""
        if self._deadline is not None and self._monotonic() >= self._deadline:
            self._deadline = None
            self.revert()
            self._effect("reverted")

    def revert(self) -> None:
        """What holds once the timer has run out."""

    def written(self, address: int) -> None:
        """A write of the starting point restarts the timer."""
        point = load_model(self.control).points[self.starts]
        if address == self._address[self.control] + point.offset:
            seconds = self.seconds()
            self._deadline = self._monotonic() + seconds if seconds else None
            self._effect("set", enabled=self._get(self.control, self.starts))

    def seconds(self) -> int:
        """Length of the timer now; 0 = none."""
        return 0

    def left_s(self) -> int:
        """Whole seconds left on the timer."""
        return 0 if self._deadline is None else max(0, round(self._deadline - self._monotonic()))


class LimitUnit(Timed):
    """An inverter with models 701, 702 (its WMax) and 704 (WMaxLimPct with its revert timer)."""

    control = 704
    starts = "WMaxLimPctEna"

    def __init__(
        self, device_id: str, *, serial: str, rated_kw: float,
        monotonic: Callable[[], float] = time.monotonic, log: Log = lambda _entry: None,
    ) -> None:  # fmt: skip
        super().__init__(device_id, (701, 702, 704), serial=serial, monotonic=monotonic, log=log)
        self._rated_kw = rated_kw
        self._put(702, "WMax", rated_kw * 1000.0)
        self._put(704, "WMaxLimPct_SF", _LIMIT_SCALE)

    def commanded_kw(self) -> float | None:
        """Ceiling it is told to keep; None = none."""
        self.refresh()
        if self._get(704, "WMaxLimPctEna") != 1:
            return None
        return self._get(704, "WMaxLimPct") * 10.0**_LIMIT_SCALE / 100.0 * self._rated_kw

    def refresh(self) -> None:
        """Count the timer down as well."""
        super().refresh()
        self._put(704, "WMaxLimPctRvrtRem", self.left_s())

    def revert(self) -> None:
        """Each reversion point is what its partner becomes."""
        self._put(704, "WMaxLimPctEna", self._get(704, "WMaxLimPctEnaRvrt"))
        value = self._get(704, "WMaxLimPctRvrt")
        self._put(704, "WMaxLimPct", value)

    def seconds(self) -> int:
        """WMaxLimPctRvrtTms, while enabled."""
        enabled = self._get(704, "WMaxLimPctEna") == 1
        return self._get(704, "WMaxLimPctRvrtTms") if enabled else 0


class StorageUnit(Timed):
    """A storage inverter with models 103 and 124."""

    control = 124
    starts = "StorCtl_Mod"

    def __init__(
        self, device_id: str, *, serial: str, most_kw: float, negative_rates: bool = False,
        monotonic: Callable[[], float] = time.monotonic, log: Log = lambda _entry: None,
    ) -> None:  # fmt: skip
        """`most_kw`: WChaMax; `negative_rates`: whether it takes them, or makes 0 of them."""
        super().__init__(device_id, (103, 124), serial=serial, monotonic=monotonic, log=log)
        self._most_kw = most_kw
        self._negative_rates = negative_rates
        self._put(124, "WChaMax", most_kw * 1000.0)
        self._put(124, "InOutWRte_SF", _RATE_SCALE)
        for name in ("InWRte", "OutWRte"):
            self._put(124, name, 100.0, _RATE_SCALE)

    def publish(self, *, power_kw: float, soc_percent: float) -> None:
        """Show measurements; power injection-positive."""
        self._put(103, "W", power_kw * 1000.0)
        self._put(124, "ChaState", soc_percent)

    def window_kw(self) -> tuple[float, float]:
        """Least and most power it may have now, discharging positive."""
        self.refresh()
        mode = self._get(124, "StorCtl_Mod")
        low, high = -self._most_kw, self._most_kw
        if mode & _CHARGE:
            low = -self._rate("InWRte")
        if mode & _DISCHARGE:
            high = self._rate("OutWRte")
        return low, high

    def revert(self) -> None:
        """Neither limit holds."""
        self._put(124, "StorCtl_Mod", 0)

    def seconds(self) -> int:
        """InOutWRte_RvrtTms, while a limit holds."""
        return self._get(124, "InOutWRte_RvrtTms") if self._get(124, "StorCtl_Mod") else 0

    def _rate(self, name: str) -> float:
        percent = self._get(124, name) * 10.0**_RATE_SCALE
        if not self._negative_rates:
            percent = max(0.0, percent)
        return percent / 100.0 * self._most_kw


class HeartbeatUnit(Unit):
    """A battery with models 701, 704 (WSet, no revert timer) and 715 (heartbeat)."""

    def __init__(
        self, device_id: str, *, serial: str, fallback_kw: float, patience_s: float,
        monotonic: Callable[[], float] = time.monotonic, log: Log = lambda _entry: None,
    ) -> None:  # fmt: skip
        """`patience_s`: seconds without a beat after which it goes to `fallback_kw`."""
        super().__init__(device_id, (701, 704, 715), serial=serial, monotonic=monotonic, log=log)
        self._runs()
        self._fallback_kw = fallback_kw
        self._patience_s = patience_s
        self._heard: float | None = None
        self._shown = 0
        self._fallen = False
        self.local = False
        """Somebody turned its switch: it is not driven from afar."""

    def controls(self) -> range:
        """Models 704 and 715, which follow one another."""
        return range(self._address[704], self._range(715).stop)

    def commanded_kw(self) -> float | None:
        """Power it is told to hold, or falls back to; None = its own behaviour."""
        self.refresh()
        if self._fallen:
            return self._fallback_kw
        return self._get(704, "WSet") / 1000.0 if self._get(704, "WSetEna") == 1 else None

    def refresh(self) -> None:
        """Fall back when the controller's heart stands still."""
        self._put(715, "LocRemCtl", int(self.local))
        driven = self._get(704, "WSetEna") == 1
        silent = self._heard is None or self._monotonic() - self._heard > self._patience_s
        if driven and silent:
            self._put(704, "WSetEna", 0)
            self._fallen = True
            self._effect("reverted")

    def written(self, _address: int) -> None:
        """A beat is a number that changed; a new setpoint ends the fallback."""
        shown = self._get(715, "ControllerHb")
        if shown != self._shown:
            self._shown, self._heard = shown, self._monotonic()
        if self._get(704, "WSetEna") == 1:
            self._fallen = False
