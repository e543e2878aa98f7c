"""Each device's step: energy is conserved, limits hold, nothing depends on the step length."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.devices import battery, inverter, meter, site
from firmware_sim.devices.car import Stay, move_weeks

START = datetime(2017, 7, 20, 23, 30, tzinfo=UTC)
SPEC = battery.BatterySpec()
COMMANDS = st.one_of(st.none(), st.floats(-8.0, 8.0))


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def run_battery(
    commands: list[float | None], stored: float, step: float = 10.0
) -> tuple[battery.BatteryState, list[battery.BatteryOutputs]]:
    state, seen = battery.BatteryState(START, stored), []
    for number, command in enumerate(commands, start=1):
        time = after(number * step)
        state, did = battery.update(SPEC, state, time, battery.BatteryInputs(command))
        seen.append(did)
    return state, seen


def test_a_battery_that_nobody_commands_is_idle_and_says_so() -> None:
    state, seen = run_battery([None] * 5, 3.0)
    assert state.stored_kwh == 3.0
    assert all(did.fallback and did.mean_kw == 0.0 for did in seen)


def test_a_battery_ramps_to_its_setpoint_and_the_mean_of_the_step_shows_it() -> None:
    _, seen = run_battery([4.0, 4.0], 6.0)
    assert seen[0].mean_kw == pytest.approx((4.0 * 4.0 / 2 + 4.0 * 6.0) / 10.0)
    assert seen[1].mean_kw == pytest.approx(4.0)
    assert not seen[0].fallback


def test_the_round_trip_loses_a_tenth() -> None:
    state, charged = run_battery([-3.0] * 360, 1.0)
    put_in = -sum(did.mean_kw for did in charged) * 10 / 3600
    gained = state.stored_kwh - 1.0
    assert gained * SPEC.one_way / put_in == pytest.approx(0.9)


def test_an_empty_battery_stops_at_its_reserve() -> None:
    state, seen = run_battery([5.0] * 800, 6.4)
    delivered = sum(did.mean_kw for did in seen) * 10 / 3600
    assert state.stored_kwh == pytest.approx(SPEC.floor_kwh)
    assert delivered == pytest.approx(SPEC.deliverable_kwh(6.4))
    assert seen[-1].limited
    assert seen[-1].power_kw == 0.0


def test_a_setpoint_above_the_rating_is_clamped_and_said() -> None:
    _, seen = run_battery([9.0] * 3, 6.0)
    assert seen[-1].power_kw == SPEC.power_kw
    assert seen[-1].limited


@given(st.lists(COMMANDS, min_size=1, max_size=60), st.floats(0.32, 6.4))
def test_stored_energy_balances_with_the_terminals(
    commands: list[float | None], stored: float
) -> None:
    state, seen = run_battery(commands, stored)
    net = sum(did.mean_kw for did in seen) * 10 / 3600
    lost = stored - state.stored_kwh - net
    assert lost >= -1e-9
    assert SPEC.floor_kwh - 1e-9 <= state.stored_kwh <= SPEC.capacity_kwh + 1e-9
    assert all(abs(did.power_kw) <= SPEC.power_kw for did in seen)


@given(COMMANDS, st.floats(1.0, 6.0), st.integers(1, 12))
def test_the_length_of_the_step_does_not_matter(
    command: float | None, stored: float, parts: int
) -> None:
    whole, _ = run_battery([command], stored, step=60.0)
    split, _ = run_battery([command] * parts, stored, step=60.0 / parts)
    assert split.stored_kwh == pytest.approx(whole.stored_kwh, abs=1e-9)


def test_time_never_runs_backwards() -> None:
    for step in (
        lambda: battery.update(
            SPEC, battery.BatteryState(START, 3.0), START, battery.BatteryInputs(None)
        ),
        lambda: meter.update(meter.MeterState(START), START, meter.MeterInputs(1, 1, 0)),
    ):
        with pytest.raises(ValueError, match="forward"):
            step()


@given(st.floats(0, 6), st.one_of(st.none(), st.floats(-1, 8)))
def test_an_inverter_gives_the_sun_or_its_limit_whichever_is_less(
    sun: float, limit: float | None
) -> None:
    spec = inverter.InverterSpec(rated_kw=4.0)
    state, did = inverter.update(
        spec, inverter.InverterState(START), after(3600), inverter.InverterInputs(sun, limit)
    )
    assert 0.0 <= did.power_kw <= min(sun, 4.0)
    assert did.power_kw + did.curtailed_kw == pytest.approx(min(sun, 4.0))
    assert state.generated_kwh == pytest.approx(did.power_kw)
    if limit is None:
        assert did.power_kw == min(sun, 4.0)
    elif limit >= 0:
        assert did.power_kw <= limit


def test_a_meter_counts_both_ways_and_only_up() -> None:
    state, did = meter.update(meter.MeterState(START), after(3600), meter.MeterInputs(3, 1, 0.5))
    assert did.power_kw == -1.5
    state, did = meter.update(state, after(7200), meter.MeterInputs(1, 2, 2))
    assert did.power_kw == 3.0
    assert (state.imported_kwh, state.exported_kwh) == (1.5, 3.0)


def car(arrive_s: float, leave_s: float, kwh: float) -> Stay:
    return Stay(after(arrive_s), after(leave_s), kwh, kwh)


STAYS = st.lists(
    st.tuples(st.floats(-7200, 3000), st.floats(60, 9000), st.floats(0.1, 30)),
    min_size=1,
    max_size=12,
)


@given(STAYS, st.lists(st.one_of(st.none(), st.floats(-60, 0)), min_size=1, max_size=40))
def test_a_site_holds_its_limit_and_gives_no_car_more_than_it_wants(
    stays: list[tuple[float, float, float]], limits: list[float | None]
) -> None:
    cars = [car(at, at + stay, kwh) for at, stay, kwh in stays]
    spec = site.SiteSpec.of(cars)
    state = site.started(spec, START)
    before, energy = state.charged_kwh, 0.0
    for number, limit in enumerate(limits, start=1):
        state, did = site.update(spec, state, after(number * 60), site.SiteInputs(limit))
        energy -= did.mean_kw / 60
        if limit is not None:
            assert did.mean_kw >= limit - 1e-9
            assert did.power_kw >= limit - 1e-9
    gained = sum(state.charged_kwh) - sum(before)
    assert gained == pytest.approx(energy, abs=1e-9)
    for stay, charged in zip(cars, state.charged_kwh, strict=True):
        assert charged <= stay.unmanaged_kwh(state.at, spec.rate_kw) + 1e-9


def test_deferred_energy_is_served_after_the_limit_the_rebound() -> None:
    spec = site.SiteSpec.of((car(-3600, 20_000, 10), car(-1800, 20_000, 10)))
    state = site.started(spec, START)
    for minute in range(1, 31):
        state, did = site.update(spec, state, after(60 * minute), site.SiteInputs(-6.6))
    assert did.deferred_kwh == pytest.approx(6.6 * 0.5, abs=1.0)
    deferred = did.deferred_kwh
    for minute in range(31, 200):
        state, did = site.update(spec, state, after(60 * minute), site.SiteInputs(None))
    assert deferred > 1.0
    assert did.deferred_kwh == pytest.approx(0.0)
    assert sum(state.charged_kwh) == pytest.approx(20.0)


def test_cars_that_left_short_are_unserved_not_deferred() -> None:
    spec = site.SiteSpec.of((car(-60, 600, 50),))
    state = site.started(spec, START)
    for minute in range(1, 15):
        state, did = site.update(spec, state, after(60 * minute), site.SiteInputs(0.0))
    assert did.deferred_kwh == 0.0
    assert did.unserved_kwh == pytest.approx(6.6 * 600 / 3600)
    assert did.cars == 0


def test_whole_weeks_keep_weekday_and_local_hour_across_the_clock_change() -> None:
    winter = datetime.fromisoformat("2019-11-07T13:24:52-08:00")
    summer = move_weeks(winter, -120, "America/Los_Angeles")
    assert summer.isoformat() == "2017-07-20T20:24:52+00:00"
    assert winter.weekday() == datetime.fromisoformat("2017-07-20").weekday()
