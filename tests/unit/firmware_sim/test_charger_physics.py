"""Stations spread charging, follow setpoints, and put the driver first; a backend shares power."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firmware_sim.devices import charger, fleet
from firmware_sim.devices.car import Stay

START = datetime(2017, 7, 20, 17, 0, tzinfo=UTC)
HOUR = 3600.0


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def car(arrive_s: float, leave_s: float, kwh: float, said_s: float | None = None) -> Stay:
    said = None if said_s is None else after(said_s)
    return Stay(after(arrive_s), after(leave_s), kwh, kwh, said)


def run(
    stays: tuple[Stay, ...], setpoints: list[float | None], step: float = 60.0
) -> tuple[charger.ChargerState, list[charger.ChargerOutputs]]:
    spec = charger.spec_of(stays)
    state, seen = charger.started(spec, START), []
    for number, kw in enumerate(setpoints, start=1):
        inputs = charger.ChargerInputs(kw)
        state, did = charger.update(spec, state, after(number * step), inputs)
        seen.append(did)
    return state, seen


def test_an_undisturbed_car_is_spread_over_nine_tenths_of_its_stay() -> None:
    _, seen = run((car(0, 10 * HOUR, 18),), [None] * 600)
    assert [did.mean_kw for did in seen[:540]] == pytest.approx([-2.0] * 540)
    assert seen[545].mean_kw == 0.0
    assert seen[545].plugged


def test_the_driver_who_said_when_to_be_back_finds_the_car_done_by_then() -> None:
    state, seen = run((car(0, 10 * HOUR, 18, said_s=5 * HOUR),), [None] * 270)
    assert seen[0].mean_kw == pytest.approx(-4.0)
    assert state.charged_kwh == (pytest.approx(18.0),)


def test_a_driver_who_comes_back_earlier_than_said_is_taken_to_have_said_so() -> None:
    one = car(0, 2 * HOUR, 9, said_s=8 * HOUR)
    assert one.spread_kw(6.6) == pytest.approx(9 / 1.8)


@pytest.mark.parametrize(("kwh", "rate"), [(0.5, 1.4), (60.0, 6.6)])
def test_the_rate_stays_between_what_a_car_accepts_and_what_a_station_gives(
    kwh: float, rate: float
) -> None:
    _, seen = run((car(0, 5 * HOUR, kwh),), [None])
    assert seen[0].mean_kw == pytest.approx(-rate)


def test_a_car_that_arrives_within_a_step_charges_from_that_second() -> None:
    _, seen = run((car(24, 10 * HOUR, 18),), [-3.0])
    assert seen[0].mean_kw == pytest.approx(-3.0 * 0.6)


@pytest.mark.parametrize("kw", [-5.0, -0.5, 0.0])
def test_a_setpoint_is_drawn_above_or_below_the_own_rate(kw: float) -> None:
    _, seen = run((car(0, 10 * HOUR, 18),), [kw] * 3)
    assert [did.mean_kw for did in seen] == pytest.approx([kw] * 3)
    assert not seen[-1].fallback


def test_no_setpoint_exceeds_the_station_and_none_makes_it_inject() -> None:
    _, seen = run((car(0, 10 * HOUR, 18),), [-50.0, 3.0])
    assert [did.mean_kw for did in seen] == pytest.approx([-6.6, 0.0])


def test_after_a_setpoint_the_rest_is_spread_anew() -> None:
    _, seen = run((car(0, 10 * HOUR, 18),), [0.0] * 270 + [None])
    assert seen[-1].mean_kw == pytest.approx(-18.0 / 4.5)


def test_a_car_without_slack_is_charged_whatever_is_told_to_the_second() -> None:
    # 6.6 kWh wanted, two hours there: after one hour of nothing there is no slack left.
    _, seen = run((car(0, 2 * HOUR, 6.6),), [0.0] * 120, step=90.0)
    assert [did.mean_kw for did in seen[:40]] == [0.0] * 40
    assert seen[40].mean_kw == pytest.approx(-6.6)
    assert seen[38].available
    assert not seen[40].available
    assert seen[100].unserved_kwh == pytest.approx(0.0)


def test_slack_that_ends_within_a_step_is_seen_within_it() -> None:
    _, seen = run((car(0, 2 * HOUR, 6.6 + 6.6 / 120),), [0.0] * 60)
    assert seen[59].mean_kw == pytest.approx(-3.3)


def test_nobody_there_and_a_full_car_are_not_available() -> None:
    _, seen = run((car(600, 10 * HOUR, 0.05),), [-6.6] * 12)
    assert [did.available for did in seen] == [False] * 9 + [True] + [False] * 2
    assert [did.wanted_kwh is None for did in seen] == [True] * 9 + [False] * 3
    assert seen[-1].wanted_kwh == pytest.approx(0.0)
    assert seen[-1].leaves == after(10 * HOUR)


@given(
    st.floats(-4 * HOUR, 4 * HOUR),
    st.floats(60, 9 * HOUR),
    st.floats(0.1, 60),
    st.one_of(st.none(), st.floats(-HOUR, 12 * HOUR)),
)
def test_stepping_undisturbed_is_the_closed_form(
    arrives: float, lasts: float, kwh: float, said: float | None
) -> None:
    one = car(arrives, arrives + lasts, kwh, said)
    state, seen = run((one,), [None] * 24, step=1800.0)
    assert state.charged_kwh[0] == pytest.approx(one.unmanaged_kwh(state.at, one.spread_kw(6.6)))
    assert seen[-1].unserved_kwh == pytest.approx(0.0, abs=1e-9)


def backend(*stays: Stay) -> fleet.FleetSpec:
    return fleet.FleetSpec(tuple(charger.spec_of((one,)) for one in stays))


def test_a_backend_adds_by_want_and_gives_up_by_slack_and_nobody_exceeds_the_station() -> None:
    # alone they draw 4, 2 and (it comes later) nothing
    spec = backend(car(0, 10 * HOUR, 36), car(0, 10 * HOUR, 18), car(HOUR, 9 * HOUR, 10))
    state = fleet.started(spec, START)
    assert fleet.setpoints(spec, state, -6.0) == pytest.approx([-4.0, -2.0, 0.0])
    assert fleet.setpoints(spec, state, -9.0) == pytest.approx([-6.0, -3.0, 0.0])
    assert fleet.setpoints(spec, state, -90.0) == pytest.approx([-6.6, -6.6, 0.0])
    slacks = (66 - 36, 66 - 18)
    given = [2.0 * slack / sum(slacks) for slack in slacks]
    less = [-4.0 + given[0], -2.0 + given[1], 0.0]
    assert fleet.setpoints(spec, state, -4.0) == pytest.approx(less)
    assert fleet.setpoints(spec, state, 0.0) == pytest.approx([0.0, 0.0, 0.0])
    assert fleet.setpoints(spec, state, None) == [None, None, None]


def test_a_backend_serves_the_car_without_slack_first() -> None:
    spec = backend(car(0, HOUR, 6.6), car(0, 9 * HOUR, 10))
    state, did = fleet.update(spec, fleet.started(spec, START), after(60), -7.0)
    assert did.mean_kw == pytest.approx(-7.0)
    _, did = fleet.update(spec, state, after(120), -1.0)
    assert did.mean_kw == pytest.approx(-6.6)
    assert did.available


@given(
    st.floats(0, 200),
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 20)), min_size=1, max_size=20),
)
@example(1.0, [(5e-324, 2.0)])
@example(1.0, [(5e-324, 0.5), (1.0, 0.1)])
def test_shares_add_up_to_what_can_be_had(total: float, parts: list[tuple[float, float]]) -> None:
    weights, caps = zip(*parts, strict=True)
    shares = fleet.share(total, weights, caps)
    able = sum(cap for weight, cap in parts if weight > 0)
    assert sum(shares) == pytest.approx(min(total, able), abs=1e-6)
    for kw, (weight, cap) in zip(shares, parts, strict=True):
        assert 0 <= kw <= cap + 1e-9
        assert weight > 0 or kw == 0.0
