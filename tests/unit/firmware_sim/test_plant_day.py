"""The plant: one reading per device and minute, repeatable, and faults between word and deed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from firmware_sim.counterfactual import minutes
from firmware_sim.planning import Planned
from firmware_sim.plant import Minutes, Plant
from firmware_sim.scenario import Scenario, step_for
from marketplace_core.errors import ConfigError
from marketplace_core.units import Direction
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading
from tests.harness.days import DATA


def run(day: Planned, step_s: int, count: int, kw: float | None = None) -> list[Reading]:
    plant = Plant(*day, DATA)
    sums, seen = Minutes(plant.at), []
    commands = {profile.device_id: kw for profile in day.scenario.profiles}
    for _ in range(count * 60 // step_s):
        since, time = plant.at, plant.at + timedelta(seconds=step_s)
        seen += sums.add(since, time, plant.step(time, commands))
    return seen


def metered(scenario: Scenario) -> set[str]:
    return set(scenario.protocols())


def test_minute_readings_are_one_per_device_without_gap(small_day: Planned) -> None:
    seen = run(small_day, 20, 5)
    devices = metered(small_day.scenario)
    assert {r.series for r in seen} == devices
    for device in devices:
        own = [r for r in seen if r.series == device]
        assert [r.sequence for r in own] == list(range(5))
        assert all(r.seconds == 60 for r in own)


def test_what_devices_show_before_the_first_step_is_what_they_then_do(small_day: Planned) -> None:
    plant = Plant(*small_day, DATA)
    before = {moment.device: moment for moment in plant.still()}
    after = {m.device: m for m in plant.step(plant.at + timedelta(seconds=10), {})}
    assert set(before) == set(after)
    for device, moment in before.items():
        assert moment.power_kw == pytest.approx(after[device].power_kw)
        assert (moment.soc_kwh, moment.available, moment.leaves) == (
            after[device].soc_kwh,
            after[device].available,
            after[device].leaves,
        )


def test_the_plant_repeats_itself_exactly(small_day: Planned) -> None:
    assert run(small_day, 12, 3, -1.0) == run(small_day, 12, 3, -1.0)


def test_the_length_of_the_step_hardly_matters(small_day: Planned) -> None:
    coarse = {(r.series, r.sequence): r.power_kw for r in run(small_day, 60, 20, -1.0)}
    fine = {(r.series, r.sequence): r.power_kw for r in run(small_day, 12, 20, -1.0)}
    assert set(coarse) == set(fine)
    for key, kw in coarse.items():
        assert fine[key] == pytest.approx(kw, abs=0.05 * max(1.0, abs(kw)))


def test_nobody_commanding_leaves_no_car_short_and_no_battery_moving(small_day: Planned) -> None:
    scenario = small_day.scenario
    seen = [one for each in minutes(*small_day, DATA) for one in each]
    assert len(seen) == 630 * len(metered(scenario))
    batteries = {home.battery for home in scenario.homes}
    assert all(one.power_kw == 0.0 for one in seen if one.series in batteries)


def test_a_command_reaches_its_device_alone(small_day: Planned) -> None:
    home = small_day.scenario.homes[0]
    plant = Plant(*small_day, DATA)
    moments = {m.device: m for m in plant.step(plant.at + timedelta(seconds=60), {home.battery: 1})}
    assert moments[home.battery].power_kw == pytest.approx(1.0, abs=0.15)
    assert not moments[home.battery].fallback
    others = {h.battery for h in small_day.scenario.homes[1:]}
    assert all(moments[name].mean_kw == 0.0 and moments[name].fallback for name in others)


def test_a_device_that_ignores_does_nothing_and_one_that_clamps_does_part(day: Planned) -> None:
    faults = {fault.kind: fault for fault in day.world.faults}
    span = day.scenario.market.event(Direction.UP).interval
    plant = Plant(*day, DATA)
    done: dict[str, list[float]] = {}
    while plant.at < span.end + timedelta(minutes=5):
        told = plant.at >= span.start - timedelta(minutes=5)
        commands = {home.battery: 1.0 if told else None for home in day.scenario.homes}
        for moment in plant.step(plant.at + timedelta(minutes=1), commands):
            if moment.device in commands and span.contains(plant.at - timedelta(minutes=1)):
                done.setdefault(moment.device, []).append(moment.mean_kw)
    shares = {FlagKind.IGNORES: 0.0, FlagKind.CLAMPS: 0.4}
    for kind, share in shares.items():
        assert done.pop(faults[kind].device)[5] == pytest.approx(share, abs=0.1)
    assert all(kw[5] == pytest.approx(1.0, abs=0.1) for kw in done.values())


@pytest.mark.parametrize(("speed", "step"), [(1, 10), (180, 10), (240, 12), (600, 30), (1200, 60)])
def test_a_step_takes_at_least_fifty_milliseconds_and_fills_a_minute(speed: int, step: int) -> None:
    assert step_for(speed) == timedelta(seconds=step)


def test_a_speed_beyond_the_simulator_is_refused_with_the_highest() -> None:
    with pytest.raises(ConfigError, match="--speed 1200 or less"):
        step_for(1201)
