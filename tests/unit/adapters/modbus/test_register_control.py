"""A control of a register map by itself: what it would write, without a device."""

from __future__ import annotations

import pytest

from adapters.modbus.registers.control import OF_A_MAP, RegisterControl
from adapters.modbus.registers.definition import RegisterError
from tests.harness.registers import shipped_map


def test_a_percentage_needs_to_know_what_all_of_it_is() -> None:
    device = shipped_map("sungrow-sh")
    control = RegisterControl(device, device.controls["active_power_limit"], phases=3)
    with pytest.raises(RegisterError, match="what 100 % is"):
        control.start(5.0, 60.0)
    control.learn({OF_A_MAP: {"nominal_power": 8.0}})
    assert control.start(2.0, 60.0)["active_power_ratio"] == 25.0
    with pytest.raises(RegisterError, match="100 is the most"):
        control.start(8.1, 60.0)
