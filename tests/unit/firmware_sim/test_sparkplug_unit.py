"""A simulated Sparkplug battery: what it does when its metrics are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.mqtt.sparkplug_payload import Metric, Raw
from firmware_sim.servers.sparkplug_unit import DECLARED, SparkplugBattery

AT = datetime(2017, 7, 20, tzinfo=UTC)


class Unit:
    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[Any] = []
        self.battery = SparkplugBattery(
            monotonic=lambda: self.now, log=self.log.append,
            accepts=lambda kw: "too much" if kw > 4 else "",
        )  # fmt: skip

    def write(self, **values: int) -> list[str]:
        return self.battery.obey(
            Metric(alias=DECLARED[f"Control/{name}"][0], value=Raw(14 if name == "Enable" else 10,
                                                                   value & 0xFFFFFFFF))
            for name, value in values.items()
        )  # fmt: skip


def test_it_holds_a_setpoint_until_its_lease_is_over() -> None:
    unit = Unit()
    assert unit.battery.commanded_kw() is None
    told = unit.write(Lease=60, Heartbeat=1, Setpoint=-2000, Enable=1)
    assert set(told) == {f"Control/{n}" for n in ("Lease", "Heartbeat", "Setpoint", "Enable")}
    assert unit.battery.commanded_kw() == 2.0
    unit.now = 59.0
    assert unit.battery.expire() == []
    unit.write(Lease=60)
    unit.now = 118.0
    assert unit.battery.commanded_kw() == 2.0
    unit.now = 119.0
    assert unit.battery.commanded_kw() is None
    assert unit.battery.expire() == ["Control/Enable"]
    effects = [entry["effect"] for entry in unit.log if "effect" in entry]
    assert effects == ["set", "fallback"]


def test_what_it_does_not_accept_it_reports_as_it_was() -> None:
    unit = Unit()
    assert unit.write(Setpoint=-5000, Enable=1) == ["Control/Setpoint"]
    assert unit.battery.values["Control/Setpoint"] == 0
    assert unit.battery.commanded_kw() is None


def test_it_discharges_what_it_delivers() -> None:
    unit = Unit()
    assert unit.battery.step(AT) == []
    unit.write(Lease=3600, Setpoint=-2000, Enable=1)
    before = unit.battery.values["Battery/Stored"]
    unit.battery.step(AT + timedelta(minutes=6))
    assert unit.battery.values["Inverter/Power"] == pytest.approx(-2000.0, rel=0.01)
    assert unit.battery.values["Battery/Stored"] == pytest.approx(before - 0.2 / 0.949, abs=0.01)


def test_it_declares_what_it_reports() -> None:
    battery = SparkplugBattery()
    assert [one.name for one in battery.declared(0)] == list(battery.values)
    assert [one.alias for one in battery.reported(battery.values, 0)] == [
        alias for alias, _ in DECLARED.values()
    ]
