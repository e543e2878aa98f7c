"""How small a test is, which way it goes, and why it is not done now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from adapters.commissioning import Offered, Rating, Sample, Standing
from gateway.edge.plan import Plan, Unfit, Wanted, choose

BATTERY = Offered("wset", "setpoint", timer=True, storage=True)
CEILING = Offered("wmaxlim_123", "limit", timer=True)
RATES = Offered("storage_124", "limit", timer=True, storage=True)
RATED = Rating(10.0, 8.0)
IDLE = Standing(active=False, power_kw=0.0, left_s=0.0)


def chosen(
    offered: Offered = BATTERY, *, kw: Sequence[float] = (0.0,), soc: float | None = 60.0,
    rating: Rating = RATED, standing: Standing = IDLE, **wanted: Any,
) -> Plan | Unfit:  # fmt: skip
    samples = [Sample(power, soc) for power in kw]
    return choose(offered, rating, samples, standing, Wanted(**wanted))


def target(offered: Offered = BATTERY, **keys: Any) -> float:
    plan = chosen(offered, **keys)
    assert isinstance(plan, Plan), plan
    return plan.target_kw


def reason(offered: Offered = BATTERY, **keys: Any) -> str:
    unfit = chosen(offered, **keys)
    assert isinstance(unfit, Unfit), unfit
    assert unfit.remedy
    return unfit.reason


def test_a_step_is_a_tenth_of_the_rating_and_half_a_kilowatt_at_most() -> None:
    assert target(rating=Rating(3.0, 3.0)) == pytest.approx(0.3)
    assert target(rating=Rating(50.0, 50.0)) == pytest.approx(0.5)
    assert target(step_kw=1.5) == pytest.approx(1.5)
    assert "more than its rating" in reason(step_kw=11.0)


@pytest.mark.parametrize(
    ("soc", "direction", "kw"),
    [(60.0, "auto", 0.5), (40.0, "auto", -0.5), (15.0, "auto", -0.5), (95.0, "auto", 0.5),
     (60.0, "down", -0.5), (40.0, "up", 0.5), (None, "auto", 0.5)],
)  # fmt: skip
def test_it_goes_the_way_that_the_state_of_charge_leaves_room_for(
    soc: float | None, direction: str, kw: float
) -> None:
    assert target(soc=soc, direction=direction) == pytest.approx(kw)


def test_it_neither_empties_an_empty_battery_nor_fills_a_full_one() -> None:
    assert "15 % is below 20 %" in reason(soc=15.0, direction="up")
    assert "95 % is above 90 %" in reason(soc=95.0, direction="down")
    assert "beyond its rating" in reason(kw=(9.8,), direction="up")
    assert target(kw=(9.8,)) == pytest.approx(9.3)


def test_an_unknown_state_of_charge_is_said() -> None:
    plan = chosen(soc=None)
    assert isinstance(plan, Plan)
    assert "not known" in plan.notes[0]


def test_what_somebody_else_has_put_in_force_is_left_alone() -> None:
    standing = Standing(active=True, power_kw=-3.0, left_s=None)
    assert "-3 kW is in force that this test did not write" in reason(standing=standing)


def test_a_power_that_moves_by_itself_hides_the_step() -> None:
    assert "moves by 0.4 kW by itself" in reason(kw=(0.0, 0.4, 0.1))
    assert target(kw=(0.0, 0.2, 0.1)) == pytest.approx(0.6)


def test_registers_too_coarse_for_the_step_are_said() -> None:
    coarse = Standing(active=False, power_kw=None, left_s=None, step_kw=0.3)
    assert "steps of 0.3 kW" in reason(standing=coarse)


def test_a_limit_is_set_below_what_the_device_does() -> None:
    assert target(CEILING, kw=(3.0,)) == pytest.approx(2.5)
    assert target(RATES, kw=(-3.0,)) == pytest.approx(-2.5)
    assert "could not be seen" in reason(CEILING, kw=(0.6,))
    assert "could not be seen" in reason(CEILING, kw=(-3.0,))
    assert "could not be seen" in reason(RATES, kw=(0.0,))


def test_the_worst_case_is_the_step_for_the_whole_time() -> None:
    plan = chosen(timer_s=20)
    assert isinstance(plan, Plan)
    assert plan.most_s > 20 * 5
    assert plan.worst_kwh == pytest.approx(0.5 * plan.most_s / 3600)
