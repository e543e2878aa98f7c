"""Each control against a unit's registers: what is written, in which order, what reads back."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from adapters.modbus.choice import control_of
from adapters.modbus.control import LIMIT_704, ActivePower, Control, PowerLimit
from adapters.modbus.heartbeat import Beaten
from adapters.modbus.measure import stored_kwh
from adapters.modbus.offer import Offer, beats, offers
from adapters.modbus.storage import StorageRates
from adapters.modbus.sunspec import (
    SunSpecError,
    Value,
    decode,
    encode,
    layout,
    load_model,
    scale_of,
)
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.errors import ConfigError
from marketplace_core.units import Kw


def profile(
    low: float = -5.0, high: float = 5.0, *, kind: ControlKind = ControlKind.SETPOINT,
    fallback: float | None = None, lease: LeaseKind = LeaseKind.REVERT_TIMER,
) -> DeviceProfile:  # fmt: skip
    return DeviceProfile(
        device_id="dev-1", protocol="modbus", min_kw=Kw(low), max_kw=Kw(high), control=kind,
        lease=lease, lease_s=60.0, fallback_kw=None if fallback is None else Kw(fallback),
    )  # fmt: skip


class Registers:
    """A unit's models as registers; what is written is kept in its order."""

    def __init__(self, **scales: Mapping[str, float]) -> None:
        self.held = {
            number: [0] * load_model(number).length for number in (121, 123, 124, 702, 704)
        }
        self.writes: list[str] = []
        for name, values in scales.items():
            for point, value in values.items():
                self.put(int(name.removeprefix("m")), point, value)

    def put(self, number: int, name: str, value: float) -> None:
        model, held = load_model(number), self.held[number]
        scale = scale_of(model, name, held) if model.point(name).type != "sunssf" else None
        words = encode(model, name, value, scale)
        offset = layout(model, held).points[name].offset
        held[offset : offset + len(words)] = words

    def apply(self, control: Control, writes: Mapping[str, float]) -> list[str]:
        for name, value in writes.items():
            self.put(control.model, name, value)
        return list(writes)

    def points(self, number: int) -> dict[str, Value]:
        return decode(load_model(number), self.held[number])

    def models(self, *numbers: int) -> dict[int, dict[str, Value]]:
        return {number: self.points(number) for number in numbers}


def test_the_ceiling_of_704_is_per_cent_of_the_unit_s_own_wmax() -> None:
    unit = Registers(m702={"W_SF": 1, "WMax": 8000.0}, m704={"WMaxLimPct_SF": -1})
    control = PowerLimit(profile(0.0, 8.0), "enable", LIMIT_704)
    control.learn(unit.models(702))
    order = unit.apply(control, control.start(3.0, 59.2))
    assert order == ["WMaxLimPctRvrtTms", "WMaxLimPctEnaRvrt", "WMaxLimPct", "WMaxLimPctEna"]
    points = unit.points(704)
    assert (points["WMaxLimPct"], points["WMaxLimPctRvrtTms"]) == (37.5, 60)
    assert points["WMaxLimPctEnaRvrt"] == 0
    unit.put(704, "WMaxLimPctRvrtRem", 42)
    in_force = control.parse(unit.points(704))
    assert (in_force.active, in_force.power_kw, in_force.lease_wall_s) == (True, 3.0, 42.0)
    assert in_force.step_kw == pytest.approx(0.008)


def test_the_ceiling_of_704_holds_the_declared_fallback_afterwards() -> None:
    unit = Registers(m702={"WMax": 5000.0})
    control = PowerLimit(profile(0.0, 5.0, fallback=1.0), "enable", LIMIT_704)
    control.learn(unit.models(702))
    unit.apply(control, control.start(3.0, 60.0))
    points = unit.points(704)
    assert (points["WMaxLimPctRvrt"], points["WMaxLimPctEnaRvrt"]) == (20, 1)


def test_the_ceiling_of_123_is_per_cent_of_the_setting_before_the_nameplate() -> None:
    unit = Registers(m121={"WMax": 4000.0})
    control = PowerLimit(profile(0.0, 4.0), "enable")
    control.learn({**unit.models(121), 120: {"WRtg": 5000}})
    assert control.start(2.0, 60.0)["WMaxLimPct"] == 50.0
    control.learn({120: {"WRtg": 5000}, 121: {"WMax": None}})
    assert control.start(2.0, 60.0)["WMaxLimPct"] == 40.0


def test_a_unit_that_does_not_say_its_rating_has_the_profile_s() -> None:
    control = PowerLimit(profile(0.0, 10.0), "enable")
    control.learn({})
    assert control.start(2.5, 60.0)["WMaxLimPct"] == 25.0


@pytest.mark.parametrize("power", [-0.1, 4.1, 5.0])
def test_a_limit_that_the_unit_cannot_have_is_refused_not_cut(power: float) -> None:
    control = PowerLimit(profile(-1.0, 5.0), "enable")
    control.learn({121: {"WMax": 4000}})
    with pytest.raises(SunSpecError, match="of the unit's 4 kW"):
        control.start(power, 60.0)


@pytest.mark.parametrize("points", [PowerLimit(profile(), "enable"),
                                    PowerLimit(profile(), "enable", LIMIT_704),
                                    ActivePower(profile(), "enable")])  # fmt: skip
def test_release_disables_and_writes_no_value(points: Control) -> None:
    assert list(points.stop().values()) == [0]
    assert all("Ena" in name for name in points.stop())


@pytest.mark.parametrize(
    ("restarts_on", "name"),
    [("timer", "WMaxLimPctRvrtTms"), ("value", "WMaxLimPct"), ("enable", "WMaxLimPctEna")],
)
def test_a_refresh_writes_the_one_point_that_restarts_the_timer(
    restarts_on: str, name: str
) -> None:
    control = PowerLimit(profile(0.0, 5.0), restarts_on, LIMIT_704)  # type: ignore[arg-type]
    assert list(control.refresh(2.0, 60.0)) == [name]


def storage(*, kind: ControlKind, negative: bool = False) -> tuple[Registers, StorageRates]:
    unit = Registers(m124={"WChaMax": 8000, "InOutWRte_SF": -2})
    control = StorageRates(profile(-8.0, 8.0, kind=kind), "enable", negative_rates=negative)
    control.learn(unit.models(124))
    return unit, control


@pytest.mark.parametrize(
    ("power", "mode", "out", "into"),
    [(2.0, 2, 25.0, 0.0), (-6.0, 1, 0.0, 75.0), (0.0, 3, 0.0, 0.0)],
)
def test_storage_is_limited_on_the_side_of_the_sign(
    power: float, mode: int, out: float, into: float
) -> None:
    unit, control = storage(kind=ControlKind.LIMIT)
    order = unit.apply(control, control.start(power, 60.0))
    assert (order[0], order[-1]) == ("InOutWRte_RvrtTms", "StorCtl_Mod")
    points = unit.points(124)
    assert (points["StorCtl_Mod"], points["OutWRte"], points["InWRte"]) == (mode, out, into)
    in_force = control.parse(points)
    assert (in_force.active, in_force.power_kw, in_force.lease_wall_s) == (True, power, None)


def test_a_limit_never_writes_a_negative_rate() -> None:
    unit, control = storage(kind=ControlKind.LIMIT, negative=True)
    for power in (-8.0, -0.1, 0.0, 0.1, 8.0):
        writes = control.start(power, 60.0)
        assert min(writes.values()) >= 0
        unit.apply(control, writes)


@pytest.mark.parametrize("power", [-8.0, -2.0, 0.0, 3.0, 8.0])
def test_storage_is_forced_by_two_limits_that_leave_one_power(power: float) -> None:
    unit, control = storage(kind=ControlKind.SETPOINT, negative=True)
    unit.apply(control, control.start(power, 60.0))
    points = unit.points(124)
    assert points["StorCtl_Mod"] == 3
    assert points["OutWRte"] == power / 8.0 * 100
    assert points["InWRte"] == -power / 8.0 * 100
    assert control.parse(points).power_kw == power


@pytest.mark.parametrize(("before", "after"), [(3.0, -3.0), (-3.0, 3.0), (1.0, 2.0), (2.0, 1.0)])
def test_the_window_of_power_is_never_empty_while_it_moves(before: float, after: float) -> None:
    unit, control = storage(kind=ControlKind.SETPOINT, negative=True)
    unit.apply(control, control.start(before, 60.0))
    control.parse(unit.points(124))
    for name, value in control.start(after, 60.0).items():
        unit.put(124, name, value)
        points = unit.points(124)
        out, into = points["OutWRte"], points["InWRte"]
        assert isinstance(out, float)
        assert isinstance(into, float)
        assert -into <= out


def test_limits_that_leave_more_than_one_power_read_back_as_no_setpoint() -> None:
    unit, control = storage(kind=ControlKind.SETPOINT, negative=True)
    unit.apply(control, {"OutWRte": 50.0, "InWRte": 50.0, "StorCtl_Mod": 3})
    in_force = control.parse(unit.points(124))
    assert in_force.active
    assert in_force.power_kw is None


def test_storage_is_not_forced_where_the_maker_does_not_allow_it() -> None:
    unit = Registers(m124={"WChaMax": 8000})
    control = StorageRates(profile(), "enable")
    control.learn(unit.models(124))
    for power in (-1.0, 0.0, 1.0):
        with pytest.raises(SunSpecError, match="negative_rates = true"):
            control.start(power, 60.0)


def test_storage_without_a_reference_is_refused() -> None:
    control = StorageRates(profile(kind=ControlKind.LIMIT), "enable")
    control.learn(Registers().models(124))
    with pytest.raises(SunSpecError, match="WChaMax"):
        control.start(1.0, 60.0)


def test_storage_beyond_its_reference_is_refused() -> None:
    _unit, control = storage(kind=ControlKind.LIMIT)
    with pytest.raises(SunSpecError, match="WChaMax of 8 kW"):
        control.start(8.1, 60.0)


def test_storage_is_released_by_taking_both_limits_off() -> None:
    unit, control = storage(kind=ControlKind.LIMIT)
    unit.apply(control, control.start(2.0, 60.0))
    assert control.stop() == {"StorCtl_Mod": 0}
    unit.apply(control, control.stop())
    assert not control.parse(unit.points(124)).active


@pytest.mark.parametrize(
    ("restarts_on", "names"),
    [("timer", {"InOutWRte_RvrtTms"}), ("value", {"OutWRte", "InWRte"}),
     ("enable", {"StorCtl_Mod"})],
)  # fmt: skip
def test_storage_is_refreshed_by_what_restarts_its_timeout(
    restarts_on: str, names: set[str]
) -> None:
    control = StorageRates(profile(), restarts_on, negative_rates=True)  # type: ignore[arg-type]
    control.learn(Registers(m124={"WChaMax": 8000}).models(124))
    assert set(control.refresh(2.0, 60.0)) == names


@pytest.mark.parametrize("control", [
    PowerLimit(profile(0.0, 5.0), "timer"), StorageRates(profile(), "timer", negative_rates=True),
])  # fmt: skip
def test_a_lease_longer_than_a_timer_of_one_register_is_the_longest_it_holds(
    control: Control,
) -> None:
    control.learn(Registers(m124={"WChaMax": 8000}).models(124))
    assert list(control.refresh(1.0, 1e6).values()) == [0xFFFE]


def test_heartbeat_writes_no_timer_and_reads_none_back() -> None:
    control = Beaten(ActivePower(profile(fallback=0.0), "enable"))
    assert list(control.start(2.0, 60.0)) == ["WSetMod", "WSet", "WSetEna"]
    assert control.refresh(2.0, 60.0) == {"WSetEna": 1}
    assert control.parse({"WSetEna": 1, "WSet": 2000, "WSetRvrtRem": 0}).lease_wall_s is None


@pytest.mark.parametrize(
    ("model", "points", "capacity", "stored"),
    [
        (713, {"WHAvail": 6400}, None, 6.4),
        (713, {"WHAvail": None}, 10.0, None),
        (802, {"SoC": 62.5, "WHRtg": 8000}, None, 5.0),
        (802, {"SoC": 62.5, "WHRtg": None}, 8.0, None),
        (124, {"ChaState": 25.0}, 12.0, 3.0),
        (124, {"ChaState": 25.0}, None, None),
    ],
)
def test_stored_energy_as_each_model_says_it(
    model: int, points: dict[str, Value], capacity: float | None, stored: float | None
) -> None:
    assert stored_kwh(model, points, capacity) == stored


def test_the_control_is_the_configured_one_or_the_role_s() -> None:
    def chosen(role: str, name: str | None = None) -> tuple[type, int] | None:
        control = control_of(profile(), role, name, "enable", negative_rates=False)  # type: ignore[arg-type]
        return None if control is None else (type(control), control.model)

    assert chosen("battery") == (ActivePower, 704)
    assert chosen("inverter") == (PowerLimit, 123)
    assert chosen("meter") is None
    assert chosen("inverter", "wset") == (ActivePower, 704)
    assert chosen("battery", "wmaxlim_704") == (PowerLimit, 704)
    assert chosen("battery", "storage_124") == (StorageRates, 124)


def test_a_heartbeat_without_a_declared_fallback_is_refused() -> None:
    beaten = profile(lease=LeaseKind.HEARTBEAT)
    with pytest.raises(ConfigError, match="declare fallback_kw"):
        control_of(beaten, "battery", None, "enable", negative_rates=False)


def test_what_a_unit_offers_is_read_from_its_registers() -> None:
    unit = Registers()
    assert offers(unit.models(123, 124, 704)) == (
        Offer("wset", 704, "setpoint", True), Offer("wmaxlim_704", 704, "limit", True),
        Offer("wmaxlim_123", 123, "limit", True), Offer("storage_124", 124, "limit", True),
    )  # fmt: skip
    model = load_model(704)
    unit.held[704][model.points["WSetEna"].offset] = 0xFFFF  # not implemented
    unit.held[704][model.points["WMaxLimPctRvrtTms"].offset] = 0xFFFF
    unit.held[704][model.points["WMaxLimPctRvrtTms"].offset + 1] = 0xFFFF
    unit.held[123][load_model(123).points["WMaxLimPct_SF"].offset] = 0x8000
    assert offers(unit.models(123, 704)) == (Offer("wmaxlim_704", 704, "limit", False),)
    assert not beats({})
    assert beats({715: {"ControllerHb": 0}})
