"""Planning again while an order runs; tiers; loads with deadlines."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_core.dispatch.bounds import (
    DeviceState,
    allocate,
    allocate_tiers,
    headroom,
    within_deadline,
)
from marketplace_core.dispatch.lifecycle import (
    REVISING,
    RUNNING,
    OrderState,
    TransitionError,
    advance,
)
from marketplace_core.dispatch.merit_order import reaward
from marketplace_core.dispatch.order import Allocation, Call, Order, Shortfall
from marketplace_core.dispatch.planner import plan, replan
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.events import OrderAwarded, OrderPlanned, OrderRevised
from marketplace_core.intervals import Interval, instant
from marketplace_core.procurement.contract import Contract
from marketplace_core.registry.asset import MeasurementPoint
from marketplace_core.units import Direction, Kw, Kwh

START = instant("2017-07-21T00:00:00Z")
HOUR = timedelta(hours=1)
UP, DOWN = Direction.UP, Direction.DOWN


def order(kw: float = 8.0, direction: Direction = UP, revision: int = 0) -> Order:
    return Order(
        id="ord_1", buyer="org_b", need_id="need_1", feeder="F", direction=direction, kw=Kw(kw),
        interval=Interval(START, START + 2 * HOUR), revision=revision,
    )  # fmt: skip


def call(kw: float, contract: str = "ctr_1") -> Call:
    return Call(contract_id=contract, seller="org_s", kw=Kw(kw), price=Decimal(100))


def battery(name: str, **changes: object) -> DeviceState:
    profile = DeviceProfile(
        device_id=name, protocol="modbus", min_kw=Kw(-5.0), max_kw=Kw(5.0),
        lease=LeaseKind.REVERT_TIMER, lease_s=900.0, capacity_kwh=Kwh(100.0),
    )  # fmt: skip
    state = DeviceState(profile=profile, reference_kw=Kw(0.0), soc_kwh=50.0)
    return msgspec.structs.replace(state, **changes)


def contract(name: str, kw: float, price: int) -> Contract:
    return Contract(
        id=name, need_id="need_1", bid_id="bid", buyer="org_b", seller="org_s", feeder="F",
        direction=UP, kw=Kw(kw), window=Interval(START, START + 2 * HOUR),
        utilisation_price=Decimal(price), currency="USD", assets=("a",),
        measurement_point=MeasurementPoint.DEVICE, baseline="zero", terms="utilisation",
        signed_by=("org_b", "org_s"),
    )  # fmt: skip


def by_device(allocations: tuple[Allocation, ...]) -> dict[str, float]:
    return {each.device_id: each.power_kw for each in allocations}


def again(
    fleet: list[DeviceState], short: list[Shortfall], kw: float = 8.0
) -> tuple[OrderPlanned, OrderPlanned]:
    first = plan(order(kw), [call(kw)], {"ctr_1": fleet})
    assert isinstance(first, OrderPlanned)
    driven = [
        msgspec.structs.replace(each, reference_kw=Kw(by_device(first.allocations)[
            each.profile.device_id]))
        for each in fleet
    ]  # fmt: skip
    second = replan(
        order(kw, revision=1), [call(kw)], {"ctr_1": driven},
        previous=first.allocations, short=short,
    )  # fmt: skip
    assert isinstance(second, OrderPlanned)
    return first, second


def short(device: str, delivered: float) -> Shortfall:
    return Shortfall(
        device_id=device, contract_id="ctr_1", delivered_kw=Kw(delivered), reason="clamps"
    )


def test_the_others_make_up_for_a_device_that_falls_short() -> None:
    first, second = again([battery("a"), battery("b"), battery("c")], [short("a", 1.0)])
    assert by_device(first.allocations) == pytest.approx({"a": 8 / 3, "b": 8 / 3, "c": 8 / 3})
    assert by_device(second.allocations) == pytest.approx({"a": 8 / 3, "b": 3.5, "c": 3.5})
    assert second.missing_kw == 0.0


def test_a_device_under_a_setpoint_is_planned_from_where_it_would_be_by_itself() -> None:
    first, second = again([battery("a"), battery("b")], [])
    assert by_device(second.allocations) == pytest.approx(by_device(first.allocations))


def test_what_nobody_can_make_up_is_stated() -> None:
    _, second = again([battery("a"), battery("b")], [short("a", 0.0)])
    assert second.missing_kw == pytest.approx(3.0)
    assert by_device(second.allocations)["b"] == 5.0


def test_a_device_that_went_away_keeps_its_setpoint_and_counts_for_nothing() -> None:
    fleet = [battery("a"), battery("b"), battery("c")]
    first = plan(order(), [call(8.0)], {"ctr_1": fleet})
    assert isinstance(first, OrderPlanned)
    gone = [battery("a", connected=False), fleet[1], fleet[2]]
    second = replan(
        order(revision=1), [call(8.0)], {"ctr_1": gone}, previous=first.allocations, short=[]
    )
    assert isinstance(second, OrderPlanned)
    assert by_device(second.allocations) == pytest.approx({"a": 8 / 3, "b": 4.0, "c": 4.0})


@given(
    st.lists(st.floats(0.0, 5.0), min_size=1, max_size=8),
    st.lists(st.integers(0, 2), min_size=8, max_size=8),
    st.floats(0.0, 60.0),
)
def test_tiers_change_who_serves_and_never_how_much(
    room: list[float], tiers: list[int], target: float
) -> None:
    shares = allocate_tiers(target, np.array(room), tiers[: len(room)])
    assert shares.sum() == pytest.approx(allocate(target, np.array(room)).sum())
    assert (shares <= np.array(room) + 1e-9).all()
    for share, tier in zip(shares, tiers, strict=False):
        lower = [(s, r) for s, r, t in zip(shares, room, tiers, strict=False) if t < tier]
        if share > 1e-6:
            assert all(s == pytest.approx(r) for s, r in lower), "a last resort came first"


def solar_inverter(reference: float) -> DeviceState:
    profile = DeviceProfile(
        device_id="pv", protocol="modbus", min_kw=Kw(0.0), max_kw=Kw(5.0), tier=1,
        control=ControlKind.LIMIT, lease=LeaseKind.REVERT_TIMER, lease_s=900.0,
    )  # fmt: skip
    return DeviceState(profile=profile, reference_kw=Kw(reference))


def test_generation_is_curtailed_only_for_what_is_left_over() -> None:
    fleet = [battery("a"), solar_inverter(reference=4.0)]
    little = plan(order(4.0, DOWN), [call(4.0)], {"ctr_1": fleet})
    much = plan(order(7.0, DOWN), [call(7.0)], {"ctr_1": fleet})
    assert isinstance(little, OrderPlanned)
    assert isinstance(much, OrderPlanned)
    assert by_device(little.allocations) == {"a": -4.0}
    assert by_device(much.allocations) == {"a": -5.0, "pv": 2.0}


def test_a_last_resort_that_is_not_needed_any_more_is_told_so() -> None:
    """Left out of the new plan, it would go on under its old setpoint: more than was ordered."""
    fleet = [battery("a"), solar_inverter(reference=4.0)]
    first = plan(order(7.0, DOWN), [call(7.0)], {"ctr_1": fleet})
    assert isinstance(first, OrderPlanned)
    assert by_device(first.allocations) == {"a": -5.0, "pv": 2.0}
    again = replan(
        order(4.0, DOWN, 1), [call(4.0)], {"ctr_1": fleet}, previous=first.allocations, short=[]
    )
    assert isinstance(again, OrderPlanned)
    assert by_device(again.allocations) == {"a": -4.0, "pv": 4.0}


def car(wanted: float, leaves_in: timedelta | None, reference: float = -3.0) -> DeviceState:
    profile = DeviceProfile(
        device_id="car", protocol="mqtt", min_kw=Kw(-6.0), max_kw=Kw(0.0),
        lease=LeaseKind.TIME_TO_LIVE, lease_s=900.0,
    )  # fmt: skip
    state = DeviceState(
        profile=profile, reference_kw=Kw(reference), wanted_kwh=wanted,
        leaves_at=None if leaves_in is None else START + leaves_in,
    )  # fmt: skip
    return within_deadline(state, Interval(START, START + 2 * HOUR))


def test_a_car_takes_no_more_than_it_wants() -> None:
    assert headroom(car(8.0, None), DOWN, 2.0) == pytest.approx(1.0)  # 4 kW over two hours
    assert headroom(car(60.0, None), DOWN, 2.0) == pytest.approx(3.0)  # its station's 6 kW


def test_a_car_pauses_only_as_far_as_it_can_catch_up_before_it_leaves() -> None:
    assert headroom(car(6.0, 3 * HOUR), UP, 2.0) == pytest.approx(3.0)  # 6 kWh fit afterwards
    assert headroom(car(8.0, 3 * HOUR), UP, 2.0) == pytest.approx(2.0)  # 2 kWh must be taken
    assert headroom(car(6.0, 2 * HOUR), UP, 2.0) == pytest.approx(0.0)  # it leaves at the end


def test_a_device_without_a_deadline_is_left_as_it_is() -> None:
    device = battery("a")
    assert within_deadline(device, Interval(START, START + HOUR)) is device


def test_what_one_contract_misses_is_called_from_the_cheapest_others() -> None:
    contracts = [contract("c", 10.0, 300), contract("a", 10.0, 100), contract("b", 5.0, 200)]
    previous = [call(10.0, "a"), call(2.0, "b")]
    outcome = reaward(order(12.0, revision=1), previous, contracts, {}, {"a": Kw(6.0)})
    assert {each.contract_id: each.kw for each in outcome.calls} == {"a": 10.0, "b": 5.0, "c": 3.0}
    assert outcome.shortfall_kw == 0.0


def test_nobody_is_called_for_more_than_the_contract_and_nobody_is_let_off() -> None:
    contracts = [contract("a", 10.0, 100), contract("b", 5.0, 200)]
    outcome = reaward(
        order(revision=1), [call(8.0, "a")], contracts, {"b": Kw(4.0)}, {"a": Kw(7.0)}
    )
    assert {each.contract_id: each.kw for each in outcome.calls} == {"a": 8.0, "b": 1.0}
    assert outcome.shortfall_kw == pytest.approx(6.0)


@pytest.mark.parametrize("fact", sorted(REVISING, key=lambda each: each.__name__))
@pytest.mark.parametrize("state", sorted(RUNNING, key=lambda each: each.value))
def test_a_revision_leaves_a_running_order_where_it_stands(
    fact: type[OrderRevised], state: OrderState
) -> None:
    assert advance(state, fact, 1) is state


def test_only_a_running_order_can_be_revised() -> None:
    for state in (OrderState.SUBMITTED, OrderState.REJECTED, OrderState.SETTLED, None):
        with pytest.raises(TransitionError):
            advance(state, OrderRevised, 1)
    with pytest.raises(TransitionError):
        advance(OrderState.DELIVERING, OrderAwarded, 0)
