"""A battery behind a Sparkplug edge node: its metrics, what it does when they are written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from adapters.mqtt.sparkplug_payload import DataType, Metric, Raw, Value, as_raw, typed
from firmware_sim.devices.battery import BatteryInputs, BatterySpec, BatteryState, update
from firmware_sim.servers.mqtt_control import Log

DECLARED: Final[dict[str, tuple[int, DataType]]] = {
    "Inverter/Power": (11, DataType.DOUBLE),
    "Battery/Stored": (12, DataType.FLOAT),
    "Battery/Ready": (13, DataType.BOOLEAN),
    "Control/Setpoint": (21, DataType.INT32),
    "Control/Enable": (22, DataType.BOOLEAN),
    "Control/Lease": (23, DataType.UINT32),
    "Control/Heartbeat": (24, DataType.UINT8),
}
"""Alias and type of each metric. Power and setpoint are in watts, positive when it *charges*."""
_BY_ALIAS: Final = {alias: name for name, (alias, _) in DECLARED.items()}
_CONTROL: Final = frozenset(name for name in DECLARED if name.startswith("Control/"))


class SparkplugBattery:
    """Firmware and physics of one battery; no link."""

    def __init__(
        self,
        *,
        spec: BatterySpec | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        log: Log = lambda _entry: None,
        accepts: Callable[[float], str] = lambda _kw: "",
    ) -> None:
        """`log` hears of commands and effects; `accepts` gives a reason to refuse kilowatts."""
        self.values: dict[str, Value] = {
            "Inverter/Power": 0.0, "Battery/Stored": 3.0, "Battery/Ready": True,
            "Control/Setpoint": 0, "Control/Enable": False, "Control/Lease": 0,
            "Control/Heartbeat": 0,
        }  # fmt: skip
        self._spec = BatterySpec() if spec is None else spec
        self._monotonic = monotonic
        self._log = log
        self._accepts = accepts
        self._state: BatteryState | None = None
        self._ends = float("inf")

    def commanded_kw(self) -> float | None:
        """Power to hold now, injection positive; None = nobody commands."""
        driven = self.values["Control/Enable"] and self._monotonic() < self._ends
        return -float(self.values["Control/Setpoint"]) / 1000.0 if driven else None

    def declared(self, at_ms: int) -> list[Metric]:
        """Every metric with its type and value, for a birth."""
        return [
            Metric(name=name, alias=alias, timestamp_ms=at_ms, datatype=kind,
                   value=self.values[name])
            for name, (alias, kind) in DECLARED.items()
        ]  # fmt: skip

    def reported(
        self, names: Iterable[str], at_ms: int, *, historical: bool = False
    ) -> list[Metric]:
        """Metrics by alias and without their types, for data."""
        return [
            Metric(
                alias=DECLARED[name][0], timestamp_ms=at_ms, historical=historical,
                value=as_raw(self.values[name], DECLARED[name][1]),
            )
            for name in names
        ]  # fmt: skip

    def obey(self, written: Iterable[Metric]) -> list[str]:
        """Take what a command writes; return what is to be reported back."""
        asked: dict[str, Value] = {}
        for metric in written:
            name = metric.name or _BY_ALIAS.get(metric.alias or 0, "")
            if name in _CONTROL and metric.value is not None:
                value = metric.value
                asked[name] = typed(value, DECLARED[name][1]) if isinstance(value, Raw) else value
        was = self.commanded_kw()
        if "Control/Setpoint" in asked:
            power_kw = -float(asked["Control/Setpoint"]) / 1000.0
            self._log({"received": "set", "power_w": power_kw * 1000.0})
            if self._accepts(power_kw):
                return ["Control/Setpoint"]  # as it was
        self.values.update(asked)
        if "Control/Lease" in asked:
            self._ends = self._monotonic() + float(asked["Control/Lease"])
        now = self.commanded_kw()
        if now != was:
            self._log({"effect": "release"} if now is None else {"effect": "set", "kw": now})
        return list(asked)

    def expire(self) -> list[str]:
        """Fall back once the lease is over; return what is to be reported."""
        if not self.values["Control/Enable"] or self._monotonic() < self._ends:
            return []
        self.values["Control/Enable"] = False
        self._log({"effect": "fallback"})
        return ["Control/Enable"]

    def step(self, now: datetime) -> list[str]:
        """Let the battery run until now; return what is to be reported."""
        if self._state is None:
            self._state = BatteryState(now, float(self.values["Battery/Stored"]))
            return []
        inputs = BatteryInputs(commanded_kw=self.commanded_kw())
        self._state, done = update(self._spec, self._state, now, inputs)
        self.values["Inverter/Power"] = -done.mean_kw * 1000.0
        self.values["Battery/Stored"] = done.stored_kwh
        return ["Inverter/Power", "Battery/Stored"]
