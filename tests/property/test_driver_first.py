"""Whatever a station or a backend is told, no car leaves with less than it would have had."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.devices import charger, fleet
from firmware_sim.devices.car import Stay

START = datetime(2017, 7, 20, 17, 0, tzinfo=UTC)
ROUNDING_KWH = 1e-4
SETPOINTS = st.lists(st.one_of(st.none(), st.floats(-10, 4)), min_size=1, max_size=40)
STEPS = st.sampled_from([60, 300, 900])


@st.composite
def stays(draw: st.DrawFn) -> Stay:
    arrives = draw(st.integers(-14_400, 14_400))
    lasts = draw(st.integers(30, 20_000))
    said = draw(st.one_of(st.none(), st.integers(-3_600, 60_000)))
    kwh = draw(st.floats(0.01, 80))
    at = START + timedelta(seconds=arrives)
    announced = None if said is None else at + timedelta(seconds=said)
    return Stay(at, at + timedelta(seconds=lasts), kwh, kwh, announced)


def owed(stay: Stay) -> float:
    """What the car leaves with when nobody interferes."""
    return stay.unmanaged_kwh(stay.departure, stay.spread_kw(6.6))


@settings(deadline=None, max_examples=120)
@given(stay=stays(), told=SETPOINTS, step=STEPS)
def test_a_commanded_car_leaves_as_full_as_an_undisturbed_one(
    stay: Stay, told: list[float | None], step: int
) -> None:
    spec = charger.spec_of((stay,))
    state, number = charger.started(spec, START), 0
    while state.at < stay.departure:
        time = state.at + timedelta(seconds=step)
        asked = charger.ChargerInputs(told[number % len(told)])
        before = state.charged_kwh[0]
        state, did = charger.update(spec, state, time, asked)
        number += 1
        assert -6.6 - 1e-9 <= did.mean_kw <= 0
        assert before <= state.charged_kwh[0] <= stay.energy_kwh + 1e-9
    assert state.charged_kwh[0] >= owed(stay) - ROUNDING_KWH


@settings(deadline=None, max_examples=60)
@given(
    cars=st.lists(stays(), min_size=1, max_size=6),
    told=st.lists(st.one_of(st.none(), st.floats(-50, 4)), min_size=1, max_size=40),
)
def test_no_car_of_a_backend_is_worse_off(cars: list[Stay], told: list[float | None]) -> None:
    spec = fleet.FleetSpec(tuple(charger.spec_of((one,)) for one in cars))
    state, number = fleet.started(spec, START), 0
    end = max(one.departure for one in cars)
    while state.at < end:
        time = state.at + timedelta(seconds=300)
        state, did = fleet.update(spec, state, time, told[number % len(told)])
        number += 1
        assert did.unserved_kwh <= ROUNDING_KWH * len(cars)
    for one, station in zip(cars, state.chargers, strict=True):
        assert station.charged_kwh[0] >= owed(one) - ROUNDING_KWH
