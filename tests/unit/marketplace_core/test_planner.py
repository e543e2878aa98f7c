"""From contract kilowatts to each device's kilowatts."""

from __future__ import annotations

import time
from datetime import timedelta
from decimal import Decimal

import msgspec
import numpy as np
import pytest

from marketplace_core.dispatch.bounds import PLANNING, allocate, headroom
from marketplace_core.dispatch.order import Call, Order
from marketplace_core.dispatch.planner import DeviceState, plan
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.events import OrderInfeasible, OrderPlanned
from marketplace_core.intervals import Interval, instant
from marketplace_core.units import Direction, Kw, Kwh

START = instant("2017-07-21T00:00:00Z")
UP, DOWN = Direction.UP, Direction.DOWN


def order(direction: Direction = UP, hours: float = 1.0) -> Order:
    return Order(
        id="ord_1", buyer="org_b", need_id="need_1", feeder="fdr_1", direction=direction,
        kw=Kw(10.0), interval=Interval(START, START + timedelta(hours=hours)), revision=2,
    )  # fmt: skip


def call(kw: float, contract: str = "ctr_1") -> Call:
    return Call(contract_id=contract, seller="org_s", kw=Kw(kw), price=Decimal(100))


def battery(name: str = "bat", reference: float | None = 0.0, **changes: object) -> DeviceState:
    profile = DeviceProfile(
        device_id=name, protocol="modbus", min_kw=Kw(-5.0), max_kw=Kw(5.0),
        lease=LeaseKind.REVERT_TIMER, lease_s=60.0, capacity_kwh=Kwh(6.4),
    )  # fmt: skip
    state = DeviceState(
        profile=profile,
        reference_kw=None if reference is None else Kw(reference),
        soc_kwh=6.4,
    )
    return msgspec.structs.replace(state, **changes)


def charger(name: str = "evse", reference: float = -5.0) -> DeviceState:
    profile = DeviceProfile(
        device_id=name, protocol="mqtt", min_kw=Kw(-6.6), max_kw=Kw(0.0),
        control=ControlKind.LIMIT, lease=LeaseKind.TIME_TO_LIVE, lease_s=60.0,
    )  # fmt: skip
    return DeviceState(profile=profile, reference_kw=Kw(reference))


def planned(result: OrderPlanned | OrderInfeasible) -> OrderPlanned:
    assert isinstance(result, OrderPlanned)
    return result


def only_exclusion(device: DeviceState, direction: Direction = UP) -> str:
    result = plan(order(direction), [call(3)], {"ctr_1": [device]})
    assert isinstance(result, OrderInfeasible)
    assert result.missing_kw == 3
    assert [each.device_id for each in result.excluded] == [device.profile.device_id]
    return result.excluded[0].reason


def test_shares_are_in_proportion_to_headroom_and_setpoints_are_absolute() -> None:
    # A battery at -1 kW can rise by 6, a charger at -3 kW by 3: 6 kW go 4 to 2.
    fleet = {"ctr_1": [battery(reference=-1.0), charger(reference=-3.0)]}
    result = planned(plan(order(), [call(6)], fleet))
    assert [each.share_kw for each in result.allocations] == pytest.approx([4.0, 2.0])
    assert [each.power_kw for each in result.allocations] == pytest.approx([3.0, -1.0])
    assert [each.reference_kw for each in result.allocations] == [-1.0, -3.0]
    assert result.missing_kw == 0
    assert (result.order_id, result.revision, result.interval) == ("ord_1", 2, order().interval)


def test_down_lowers_the_setpoint() -> None:
    device = battery(reference=1.0, soc_kwh=0.0)
    result = planned(plan(order(DOWN), [call(2)], {"ctr_1": [device]}))
    assert result.allocations[0].power_kw == pytest.approx(-1.0)
    assert result.allocations[0].share_kw == pytest.approx(2.0)


def test_what_no_device_can_take_is_missing() -> None:
    result = planned(plan(order(), [call(9)], {"ctr_1": [charger()]}))
    assert result.allocations[0].power_kw == 0
    assert result.missing_kw == pytest.approx(4.0)


def test_a_shortfall_of_one_contract_is_not_moved_to_another() -> None:
    fleet = {"ctr_1": [charger("a")], "ctr_2": [charger("b")]}
    result = planned(plan(order(), [call(9), call(1, "ctr_2")], fleet))
    shares = {each.contract_id: each.share_kw for each in result.allocations}
    assert shares == pytest.approx({"ctr_1": 5.0, "ctr_2": 1.0})
    assert result.missing_kw == pytest.approx(4.0)


def test_a_limit_reduces_consumption_to_nothing_at_most_and_never_raises_it() -> None:
    assert headroom(charger(reference=-5.0), UP, 1.0) == 5.0
    assert headroom(charger(reference=-5.0), DOWN, 1.0) == 0.0
    assert "no room DOWN" in only_exclusion(charger(), DOWN)


def test_a_limit_on_injection_can_only_curtail_it() -> None:
    profile = DeviceProfile(
        device_id="pv", protocol="modbus", min_kw=Kw(-0.1), max_kw=Kw(5.0),
        control=ControlKind.LIMIT, lease=LeaseKind.REVERT_TIMER,
    )  # fmt: skip
    device = DeviceState(profile=profile, reference_kw=Kw(3.0))
    assert headroom(device, DOWN, 1.0) == 3.0
    assert headroom(device, UP, 1.0) == 0.0


def test_discharge_is_limited_by_what_is_stored_less_the_loss() -> None:
    efficiency = PLANNING.one_way_efficiency
    assert headroom(battery(soc_kwh=2.0), UP, 1.0) == pytest.approx(2.0 * efficiency)
    assert headroom(battery(soc_kwh=2.0), UP, 2.0) == pytest.approx(1.0 * efficiency)
    assert headroom(battery(soc_kwh=2.0), UP, 0.1) == 5.0


def test_charge_is_limited_by_what_still_fits() -> None:
    efficiency = PLANNING.one_way_efficiency
    assert headroom(battery(soc_kwh=5.4), DOWN, 1.0) == pytest.approx(1.0 / efficiency)
    assert headroom(battery(soc_kwh=6.4), DOWN, 1.0) == 0.0
    assert headroom(battery(soc_kwh=7.0), DOWN, 1.0) == 0.0


def test_an_empty_battery_that_charges_can_still_stop_charging() -> None:
    assert headroom(battery(reference=-4.0, soc_kwh=0.0), UP, 1.0) == 4.0


def test_round_trip_efficiency_is_ninety_percent() -> None:
    assert PLANNING.one_way_efficiency**2 == pytest.approx(0.9)


def test_devices_that_cannot_be_dispatched_are_left_out_with_the_reason() -> None:
    bare = msgspec.structs.replace(battery().profile, lease=LeaseKind.NONE)
    assert "neither a lease nor a fallback" in only_exclusion(battery(profile=bare))
    assert "not connected" in only_exclusion(battery(connected=False))
    assert "not available" in only_exclusion(battery(available=False))
    assert "never reported" in only_exclusion(battery(reference=None))
    assert "stored energy" in only_exclusion(battery(soc_kwh=None))
    assert only_exclusion(battery(reference=5.0)) == (
        "it has no room UP from 5.000 kW with 6.40 kWh stored"
    )
    assert only_exclusion(charger(reference=0.0)) == "it has no room UP from 0.000 kW"


def test_a_declared_fallback_replaces_a_lease() -> None:
    profile = msgspec.structs.replace(battery().profile, lease=LeaseKind.NONE, fallback_kw=Kw(0.0))
    assert planned(plan(order(), [call(1)], {"ctr_1": [battery(profile=profile)]}))


def test_a_device_serves_one_contract_only_and_once() -> None:
    fleet = {"ctr_1": [battery(), battery()], "ctr_2": [battery(), charger()]}
    result = planned(plan(order(), [call(2), call(2, "ctr_2")], fleet))
    assert [(each.device_id, each.contract_id) for each in result.allocations] == [
        ("bat", "ctr_1"), ("evse", "ctr_2"),
    ]  # fmt: skip
    assert [each.reason for each in result.excluded] == ["it already serves contract ctr_1"]


def test_the_setpoint_stays_within_the_rating_when_the_meter_reports_more() -> None:
    result = planned(plan(order(), [call(0.01)], {"ctr_1": [charger(reference=-6.7)]}))
    assert result.allocations[0].power_kw == -6.6


def test_an_order_without_devices_is_infeasible() -> None:
    result = plan(order(), [call(3)], {})
    assert isinstance(result, OrderInfeasible)
    assert (result.missing_kw, result.excluded, result.revision) == (3, (), 2)


def test_minima_are_served_first_and_the_rest_by_what_is_left() -> None:
    room, least = np.array([4.0, 8.0]), np.array([1.0, 0.0])
    assert allocate(0.5, room, least).tolist() == [0.5, 0.0]
    assert allocate(1.0, room, least).tolist() == [1.0, 0.0]
    # 5.5 more over room for 3 and 8: half of each.
    assert allocate(6.5, room, least).tolist() == [2.5, 4.0]
    assert allocate(99.0, room, least).tolist() == [4.0, 8.0]


@pytest.mark.parametrize(
    ("target", "room", "least"),
    [
        (-1.0, [1.0], None),
        (float("nan"), [1.0], None),
        (1.0, [-1.0], None),
        (1.0, [float("inf")], None),
        (1.0, [1.0], [2.0]),
        (1.0, [1.0], [-1.0]),
        (1.0, [1.0], [0.5, 0.5]),
        (1.0, [1.0], [float("nan")]),
    ],
)
def test_allocate_refuses_senseless_numbers(
    target: float, room: list[float], least: list[float] | None
) -> None:
    with pytest.raises(ValueError, match="kW"):
        allocate(target, np.array(room), None if least is None else np.array(least))


def test_a_hundred_thousand_devices_are_allocated_in_a_tenth_of_a_second() -> None:
    room = np.random.default_rng(7).uniform(0.0, 7.0, 100_000)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        shares = allocate(0.6 * float(room.sum()), room)
        best = min(best, time.perf_counter() - begin)
    assert best < 0.1
    assert float(shares.sum()) == pytest.approx(0.6 * float(room.sum()), rel=1e-12)
