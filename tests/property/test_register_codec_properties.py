"""A value of a register map survives the way to the wire and back, in every type and order."""

from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st

from adapters.modbus.registers.codec import decode, encode
from adapters.modbus.registers.control import OF_A_MAP, RegisterControl
from adapters.modbus.registers.definition import FORMATS, DevicePoint, RegisterError
from tests.harness.registers import shipped_map

ORDERS = st.sampled_from(["big", "little"])
KINDS = st.sampled_from(sorted(FORMATS))
POINTS = st.builds(
    DevicePoint, address=st.just(0), type=KINDS, word_order=ORDERS, byte_order=ORDERS,
    scale=st.sampled_from([0.001, 0.01, 0.1, 0.5, 1.0, 10.0]), offset=st.sampled_from([0.0, -40.0]),
)  # fmt: skip


DEVICES = {
    name: shipped_map(name)
    for name in ("go-e-charger", "victron-evcs", "victron-gx-ess", "sungrow-sh")
}


@given(POINTS, st.data())
def test_registers_survive_a_value(point: DevicePoint, data: st.DataObject) -> None:
    size = point.size
    registers = data.draw(st.lists(st.integers(0, 0xFFFF), min_size=size, max_size=size))
    value = decode(point, registers)
    if value is None:
        assert point.type.startswith("float")
        return
    assert not isinstance(value, str)
    if point.type.endswith("64") and (point.scale, point.offset) != (1.0, 0.0):
        return  # more digits than a float has
    if point.type.startswith("float"):
        again = decode(point, encode(point, value))
        assert isinstance(again, float)
        assert math.isclose(again, value, rel_tol=1e-5, abs_tol=1e-6)
        return
    assert encode(point, value) == registers


@given(POINTS, st.floats(allow_nan=True, allow_infinity=True))
@example(DevicePoint(address=0, type="int16", scale=0.001), 1.797693134862316e305)
def test_any_number_is_encoded_or_refused(point: DevicePoint, value: float) -> None:
    try:
        registers = encode(point, value)
    except RegisterError:
        return
    assert len(registers) == point.size
    assert all(0 <= word <= 0xFFFF for word in registers)


@given(st.sampled_from(sorted(DEVICES)), st.floats(-25.0, 25.0), st.sampled_from([1, 2, 3]))
def test_a_device_is_never_told_more_than_was_asked(
    name: str, power_kw: float, phases: int
) -> None:
    device = DEVICES[name]
    control = RegisterControl(device, next(iter(device.controls.values())), phases=phases)
    shown = {"user_setpoint": 50, "ampere_saved": 16, "max_current": 32}
    control.learn({OF_A_MAP: shown})
    try:
        writes = control.start(power_kw, 60.0)
    except RegisterError:
        return
    for point, value in writes.items():
        shown[point] = decode(device.points[point], encode(device.points[point], value))
    in_force = control.parse(shown)
    assert in_force.active
    assert in_force.power_kw is not None
    assert abs(in_force.power_kw) <= abs(power_kw) + 1e-6
    assert in_force.power_kw * power_kw >= 0.0
    assert abs(in_force.power_kw - power_kw) <= in_force.step_kw + 1e-6
