"""A fleet's devices: drawn from the seed, and columns that do what one battery does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.devices.battery import BatteryInputs, BatterySpec, BatteryState, update
from firmware_sim.fleet.core import Core
from firmware_sim.fleet.draws import full_jitter, uniform
from firmware_sim.fleet.effects import Effects
from firmware_sim.fleet.physics import Plant
from firmware_sim.fleet.population import BATTERY, CHARGER, INVERTER, populate
from firmware_sim.fleet.scenario import NOTHING

START = datetime(2026, 1, 1, tzinfo=UTC)
FLEET = populate("mqtt", 60, seed=3)
BATTERIES = [n for n, kind in enumerate(FLEET.kinds) if kind == BATTERY]


def test_a_device_is_the_same_however_large_the_fleet_is() -> None:
    small, large = populate("mqtt", 50, seed=7), populate("mqtt", 5_000, seed=7)
    assert small.ids == large.ids[:50]
    for name in ("low_kw", "high_kw", "capacity_kwh", "stored_kwh", "phase", "cloud", "old"):
        assert (getattr(small, name) == getattr(large, name)[:50]).all(), name


def test_another_seed_or_protocol_is_another_fleet() -> None:
    one, other = populate("mqtt", 50, seed=7), populate("mqtt", 50, seed=8)
    assert one.ids != other.ids
    assert not (one.phase == other.phase).any()
    assert not set(one.ids) & set(populate("modbus", 50, seed=7).ids)


def test_every_kind_and_both_versions_are_there() -> None:
    fleet = populate("mqtt", 2_000, seed=1, old_share=0.25)
    assert {kind: fleet.kinds.count(kind) > 100 for kind in (BATTERY, CHARGER, INVERTER)} == {
        BATTERY: True, CHARGER: True, INVERTER: True,
    }  # fmt: skip
    assert 0.2 < fleet.old.mean() < 0.3
    assert len(set(fleet.ids)) == 2_000


@settings(max_examples=40, deadline=None)
@given(
    commands=st.lists(
        st.lists(
            st.one_of(st.none(), st.floats(-9.0, 9.0, allow_subnormal=False)),
            min_size=len(BATTERIES), max_size=len(BATTERIES),
        ),
        min_size=1, max_size=4,
    ),
    seconds=st.sampled_from([1.0, 7.0, 600.0, 3_000.0]),
)  # fmt: skip
def test_columns_do_what_one_battery_does(
    commands: list[list[float | None]], seconds: float
) -> None:
    plant, effects = Plant(FLEET), Effects(len(FLEET))
    states = {n: BatteryState(START, float(FLEET.stored_kwh[n])) for n in BATTERIES}
    for number, step in enumerate(commands):
        commanded = np.full(len(FLEET), np.nan)
        for n, kw in zip(BATTERIES, step, strict=True):
            commanded[n] = np.nan if kw is None else kw
        plant.step(number * seconds, seconds, commanded, effects)
        at = START + timedelta(seconds=(number + 1) * seconds)
        for n, kw in zip(BATTERIES, step, strict=True):
            spec = BatterySpec(
                power_kw=float(FLEET.high_kw[n]), capacity_kwh=float(FLEET.capacity_kwh[n]),
                round_trip=float(FLEET.one_way[n]) ** 2, reserve=0.05,
                ramp_kw_per_s=float(FLEET.ramp_kw_per_s[n]),
            )  # fmt: skip
            states[n], did = update(spec, states[n], at, BatteryInputs(kw))
            assert plant.stored_kwh[n] == pytest.approx(states[n].stored_kwh, abs=1e-9)
            assert plant.mean_kw[n] == pytest.approx(did.mean_kw, abs=1e-9)
            assert plant.power_kw[n] == pytest.approx(did.power_kw, abs=1e-9)


def test_a_charger_takes_until_its_car_is_full_and_never_gives() -> None:
    core = Core(FLEET, NOTHING, seed=1)
    chargers = [n for n, kind in enumerate(FLEET.kinds) if kind == CHARGER]
    core.commanded_kw[chargers[0]] = 5.0
    for _ in range(60):
        core.step()
    assert core.plant.power_kw[chargers[0]] == 0.0
    assert (core.plant.power_kw[chargers[1:]] == FLEET.low_kw[chargers[1:]]).all()
    core.plant.stored_kwh[chargers] = FLEET.capacity_kwh[chargers]
    core.step()
    assert (core.plant.power_kw[chargers] == 0.0).all()
    assert not core.plant.available()[chargers].any()


def test_an_inverter_keeps_below_its_ceiling_and_the_sun() -> None:
    core = Core(FLEET, NOTHING, seed=1)
    pv = np.array([n for n, kind in enumerate(FLEET.kinds) if kind == INVERTER])
    for _ in range(30):
        core.step()
    sunny = core.plant.power_kw[pv].copy()
    assert (sunny > 0.3 * FLEET.high_kw[pv]).all()
    core.commanded_kw[pv] = 1.0
    for _ in range(30):
        core.step()
    assert core.plant.power_kw[pv] == pytest.approx(1.0)


def test_draws_have_no_state_and_fill_their_range() -> None:
    drawn = np.array([uniform(7, 1, n) for n in range(20_000)])
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert abs(drawn.mean() - 0.5) < 0.01
    assert np.histogram(drawn, bins=10, range=(0, 1))[0].min() > 1_800
    assert uniform(7, 1, 5) == drawn[5]
    assert uniform(7, 2, 5) != drawn[5]


def test_jitter_is_full_and_its_cap_doubles() -> None:
    waits = np.array([[full_jitter(f, 2.0, 30.0, 7, n) for n in range(4_000)] for f in range(8)])
    for failures, longest in enumerate((2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0)):
        assert waits[failures].max() < longest
        assert waits[failures].min() < 0.01 * longest, "from nothing on"
        assert abs(waits[failures].mean() - longest / 2) < 0.05 * longest
