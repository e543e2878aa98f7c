"""Ramp, minimum power and fairness, from device states to setpoints."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import ProfileSettings
from gateway.bindings import device_profile
from marketplace_core.dispatch.bounds import (
    NEGLIGIBLE_KW,
    DeviceState,
    allocate_tiers,
    headroom,
    unusable,
    within_deadline,
)
from marketplace_core.dispatch.columns import columns_of, divide_columns
from marketplace_core.dispatch.others import Others
from marketplace_core.dispatch.planner import plan, replan
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.dispatch.sharing import Claims, Fairness, Sharing, divide
from marketplace_core.dispatch.stretches import whole
from marketplace_core.events import OrderInfeasible
from marketplace_core.intervals import Interval
from marketplace_core.units import Direction, Kw, Kwh
from tests.unit.marketplace_core.test_planner import (
    DOWN,
    START,
    UP,
    battery,
    call,
    charger,
    order,
    planned,
)

SPAN = Interval(START, START + timedelta(hours=1))
KW = st.floats(-20, 20)


def limited(device: DeviceState, **limits: float) -> DeviceState:
    return msgspec.structs.replace(
        device, profile=msgspec.structs.replace(device.profile, **limits)
    )  # fmt: skip


def shares(fleet: list[DeviceState], kw: float, sharing: Sharing) -> dict[str, float]:
    result = planned(plan(order(), [call(kw)], {"ctr_1": fleet}, sharing=sharing))
    return {each.device_id: each.share_kw for each in result.allocations}


def test_a_slow_device_is_asked_for_what_it_reaches_in_a_minute() -> None:
    slow = limited(battery("slow"), ramp_kw_per_s=0.02)
    assert headroom(slow, UP, 1.0) == pytest.approx(1.2)
    result = planned(plan(order(), [call(6)], {"ctr_1": [slow, battery("quick")]}))
    assert [each.share_kw for each in result.allocations] == pytest.approx([7.2 / 6.2, 30 / 6.2])


def test_a_charger_is_never_told_less_than_it_can_run_at() -> None:
    fleet = [limited(charger(name), min_on_kw=1.4) for name in ("a", "b", "c")]
    for kw in np.arange(0.5, 15.5, 0.5).tolist():
        result = planned(plan(order(), [call(kw)], {"ctr_1": fleet}))
        powers = [each.power_kw for each in result.allocations]
        assert all(power == 0 or power <= -1.4 for power in powers)
        assert sum(each.share_kw for each in result.allocations) + result.missing_kw == (
            pytest.approx(kw)
        )
        assert result.missing_kw < 1.4


def test_a_device_without_room_for_its_minimum_is_left_out_and_the_order_says_why() -> None:
    device = limited(battery(soc_kwh=1.0), min_on_kw=3.0)
    result = plan(order(), [call(2)], {"ctr_1": [device]})
    assert isinstance(result, OrderInfeasible)
    assert [each.reason for each in result.excluded] == [
        "it has no room UP from 0.000 kW with 1.00 kWh stored: below 3.000 kW it does not run"
    ]
    assert headroom(device, UP, 1.0) == 0.0


def test_an_engine_that_is_not_needed_is_left_alone() -> None:
    fleet = [limited(battery(name), min_on_kw=4.0) for name in ("a", "b")]
    result = planned(plan(order(), [call(4.5)], {"ctr_1": fleet}))
    assert [(each.device_id, each.share_kw) for each in result.allocations] == [("a", 4.5)]
    assert result.missing_kw == 0
    assert result.excluded == ()


def test_equal_shares_are_equal_until_a_device_has_no_more() -> None:
    fleet = [battery("a"), charger("b", -1.0), charger("c", -4.0)]
    found = shares(fleet, 7.0, Sharing(Fairness.EQUAL))
    assert found == pytest.approx({"a": 3.0, "b": 1.0, "c": 3.0})


def test_a_weight_moves_a_part_of_the_burden() -> None:
    found = shares([battery("a"), battery("b")], 4.0, Sharing(weights={"a": 3.0}))
    assert found == pytest.approx({"a": 3.0, "b": 1.0})


def test_merit_comes_first_and_equals_share() -> None:
    fleet = [battery("a"), battery("b"), battery("c")]
    found = shares(fleet, 7.0, Sharing(Fairness.PRIORITY, ranks={"a": 2.0, "b": 1.0, "c": 2.0}))
    assert found == pytest.approx({"b": 5.0, "a": 1.0, "c": 1.0})


def test_rotating_takes_the_least_used_and_leaves_the_others_alone() -> None:
    fleet = [battery("a"), battery("b"), battery("c")]
    rotate = Sharing(Fairness.ROTATE, ranks={"a": 9.0, "b": 2.0, "c": 1.0})
    assert shares(fleet, 7.0, rotate) == pytest.approx({"c": 5.0, "b": 2.0})


def test_a_device_that_a_new_plan_no_longer_needs_is_told_so() -> None:
    fleet = {"ctr_1": [battery("a"), battery("b")]}
    rotate = Sharing(Fairness.ROTATE)
    first = planned(plan(order(), [call(7.0)], fleet, sharing=rotate))
    again = replan(
        order(), [call(4.0)], fleet, previous=first.allocations, short=(), sharing=rotate
    )
    assert {each.device_id: each.power_kw for each in planned(again).allocations} == {
        "a": 4.0, "b": 0.0,
    }  # fmt: skip


def test_a_reference_from_another_order_counts_for_devices_that_are_left_out_too() -> None:
    away = battery("a", reference=None, connected=False)
    result = plan(order(), [call(1)], {"ctr_1": [away]}, others=Others({}, {"a": Kw(0.0)}))
    assert isinstance(result, OrderInfeasible)
    assert [each.reason for each in result.excluded] == ["it is not connected"]


@st.composite
def states(draw: st.DrawFn) -> DeviceState:
    low, high = sorted(draw(KW) + 0.0 for _ in range(2))
    has = draw(st.booleans())
    profile = DeviceProfile(
        device_id="dev", protocol="mqtt", min_kw=Kw(low), max_kw=Kw(high),
        control=draw(st.sampled_from(ControlKind)),
        lease=draw(st.sampled_from([LeaseKind.TIME_TO_LIVE, LeaseKind.NONE])),
        fallback_kw=draw(st.none() | st.just(Kw(low))),
        capacity_kwh=Kwh(draw(st.floats(0.1, 50))) if has else None,
        ramp_kw_per_s=draw(st.none() | st.floats(1e-4, 1)),
        min_on_kw=Kw(draw(st.just(0.0) | st.floats(0, 8))),
    )  # fmt: skip
    return DeviceState(
        profile=profile,
        reference_kw=draw(st.none() | KW.map(Kw)),
        soc_kwh=draw(st.none() | st.floats(0, 50)),
        available=draw(st.booleans()), connected=draw(st.booleans()),
        wanted_kwh=draw(st.none() | st.floats(0, 30)),
        leaves_at=draw(st.none() | st.integers(-600, 7200).map(lambda s: START + s * SECOND)),
        take_kwh=draw(st.none() | st.just((0.5, 3.0))),
    )  # fmt: skip


SECOND = timedelta(seconds=1)


@settings(deadline=None, max_examples=150)
@given(st.lists(states(), max_size=6), st.sampled_from(Direction))
def test_columns_say_of_every_device_what_its_bounds_say(
    fleet: list[DeviceState], direction: Direction
) -> None:
    columns = columns_of(fleet, SPAN)
    assert columns.usable.tolist() == [not unusable(each) for each in fleet]
    # More than all of them have: each gives what it can hold.
    given = divide_columns(1e6, columns, direction, SPAN.hours).share_kw.tolist()
    for each, share in zip(fleet, given, strict=True):
        room = headroom(within_deadline(each, SPAN), direction, SPAN.hours)
        assert share == (0.0 if unusable(each) or room < NEGLIGIBLE_KW else room)


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(0, 2)), max_size=8), st.floats(0, 40))
def test_tiers_far_apart_are_tiers_like_others(
    fleet: list[tuple[float, int]], target: float
) -> None:
    room, tiers = np.array([kw for kw, _ in fleet]), [tier for _, tier in fleet]
    far = [tier * 1000 - 1000 for tier in tiers]
    near = allocate_tiers(target, room, tiers)
    assert allocate_tiers(target, room, far).tolist() == near.tolist()


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        (Claims(np.zeros(1, np.int64), weight=np.zeros(1)), "weight"),
        (Claims(np.zeros(1, np.int64), weight=np.array([np.inf])), "weight"),
        (Claims(np.zeros(1, np.int64), rank=np.array([np.nan])), "rank"),
    ],
)
def test_senseless_claims_are_refused(claims: Claims, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        divide(1.0, whole(np.ones(1)), claims, Fairness.EQUAL)


def test_limits_come_from_the_settings() -> None:
    given = ProfileSettings(min_kw=-7, max_kw=0, ramp_kw_per_s=0.5, min_on_kw=1.4)
    profile = device_profile("ev-1", "mqtt", given)
    assert (profile.ramp_kw_per_s, profile.min_on_kw) == (0.5, 1.4)


def test_down_keeps_to_the_minimum_too() -> None:
    idle = limited(charger(reference=0.0), min_on_kw=1.4)
    setpoint = msgspec.structs.replace(idle.profile, control=ControlKind.SETPOINT)
    device = msgspec.structs.replace(idle, profile=setpoint)
    result = planned(plan(order(DOWN), [call(2.0)], {"ctr_1": [device]}))
    assert [each.power_kw for each in result.allocations] == [-2.0]
    little = plan(order(DOWN), [call(1.0)], {"ctr_1": [device]})
    assert isinstance(little, OrderInfeasible)
    assert little.missing_kw == 1.0
    assert [each.reason for each in little.excluded] == [
        "it cannot give as little as lacks: it runs at 1.400 kW or more"
    ]
