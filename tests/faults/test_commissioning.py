"""The safe test against simulated units over real sockets, honest ones and liars.

Whatever a unit does, it is left as it was, and nothing is claimed that was not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest

from adapters.commissioning import Rating
from adapters.modbus.bench import SunSpecBench
from adapters.modbus.wire import load_model
from firmware_sim.servers.modbus import ModbusServer, Unit
from gateway.edge.judging import Findings, Release, Verdict, judge
from gateway.edge.plan import Plan
from gateway.edge.trial import Progress, Trial
from tests.harness import bench as sim
from tests.harness.bench import Now, TestPace, bench_on, planned, trial

pytestmark = pytest.mark.process


@asynccontextmanager
async def on_bench(unit: Unit, **keys: Any) -> AsyncIterator[SunSpecBench]:
    async with ModbusServer({1: unit}) as server:
        made = bench_on(server.port, **keys)
        try:
            yield made
        finally:
            made.close()


def controls_of(unit: Unit) -> list[int]:
    """Registers of the control model that a test may write, as they stand."""
    unit.refresh()
    place = unit.controls()
    found = unit.read(place.start, len(place))
    assert found is not None
    return found


Make = Callable[[Now], Unit]
Made = tuple[Make, dict[str, Any]]


def lying(**traits: Any) -> Make:
    """A battery with some traits; `faults_X` is a switch of its server."""

    def make(now: Now) -> Unit:
        unit = sim.Battery(now)
        for name, value in traits.items():
            place = unit.faults if name.startswith("faults_") else unit
            setattr(place, name.removeprefix("faults_"), value)
        return unit

    return make


class Forgetful(sim.Battery):
    """Makes a minute of no revert time."""

    def written(self, address: int) -> None:
        """As it says."""
        super().written(address)
        if self._get(704, "WSetRvrtTms") == 0:
            self._put(704, "WSetRvrtTms", 60)


LIMIT = {"rating": Rating(5.0, 0.0)}
CASES: dict[str, Made] = {
    "honest": (sim.Battery, {}),
    "restarts on timer": (lambda now: sim.Restarting(now, "WSetRvrtTms"), {}),
    "restarts on value": (lambda now: sim.Restarting(now, "WSet"), {}),
    "restarts on nothing": (lambda now: sim.Restarting(now, ""), {}),
    "timer stands still": (lying(faults_no_timer=True), {}),
    "timer ends nothing": (lying(ends=False), {}),
    "power sticks": (lying(sticks=True), {}),
    "ignores": (lying(faults_ignores=True), {}),
    "power ignores": (lying(gain=0.0), {}),
    "clamps": (lying(clamp_kw=0.5), {}),
    "wrong way": (lying(gain=-1.0), {}),
    "runs away": (lying(gain=5.0), {}),
    "123": (sim.Inverter, {"control": "wmaxlim_123", **LIMIT}),
    "704": (sim.Limited, {"control": "wmaxlim_704", **LIMIT}),
    "124": (sim.Storage, {"control": "storage_124", **LIMIT}),
    "124 forced": (
        lambda now: sim.Storage(now, negative_rates=True),
        {"control": "storage_124", "negative_rates": True, "direction": "down"},
    ),
    "forgetful": (Forgetful, {}),
    "heartbeat": (sim.Hearted, {"rating": Rating(5.0, 5.0)}),
}


class Outcome(NamedTuple):
    found: Findings
    verdict: Verdict
    before: list[int]
    after: list[int]


async def put_to_test(make: Make, wanted: dict[str, Any]) -> Outcome:
    pace = TestPace()
    unit, wanted = make(pace.now), dict(wanted)
    control = wanted.pop("control", "wset")
    async with on_bench(unit, negative_rates=wanted.pop("negative_rates", False)) as bench:
        plan = await planned(bench, control, **wanted)
        before = controls_of(unit)
        found = await trial(bench, plan, pace).run()
    return Outcome(found, judge(found), before, controls_of(unit))


@pytest.fixture(scope="module")
def tested() -> dict[str, Outcome]:
    """Every case, side by side: each mostly waits for timers."""

    async def all_of_them() -> dict[str, Outcome]:
        async with asyncio.TaskGroup() as tasks:
            running = {
                name: tasks.create_task(put_to_test(make, wanted))
                for name, (make, wanted) in CASES.items()
            }
        return {name: task.result() for name, task in running.items()}

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"forgetful"}))
def test_whatever_a_unit_does_it_is_left_as_it_was(tested: dict[str, Outcome], name: str) -> None:
    one = tested[name]
    assert one.found.restored is not None
    assert one.found.restored.whole, one.found.restored
    # The heartbeat's count goes on: it stands in model 715, behind the control model.
    length = load_model(704).length if name == "heartbeat" else len(one.before)
    assert one.after[:length] == one.before[:length]


def test_a_unit_that_does_as_it_says_gets_its_timer_as_lease(tested: dict[str, Outcome]) -> None:
    found, verdict = tested["honest"][:2]
    assert found.ended == "done"
    assert found.power is not None
    assert found.power.following == "follows"
    assert found.power.settled_kw == pytest.approx(0.7)
    assert found.timer is not None
    assert found.timer.counts_down
    assert found.timer.reverted_after_s == pytest.approx(10.0, abs=0.5)
    assert found.timer.power_returned
    assert found.restarts == {"enable": True, "value": False, "timer": False}
    assert found.release == Release(reads_back=True, power_returned=True)
    assert (verdict.lease, verdict.restarts_on) == ("revert_timer", "enable")


@pytest.mark.parametrize("restarts", ["timer", "value", None])
def test_the_write_that_restarts_the_timer_is_found(
    tested: dict[str, Outcome], restarts: str | None
) -> None:
    found, verdict = tested[f"restarts on {restarts or 'nothing'}"][:2]
    assert [on for on, yes in found.restarts.items() if yes] == ([restarts] if restarts else [])
    assert verdict.lease == "revert_timer"
    assert verdict.long_lease is (restarts is None)
    assert verdict.restarts_on == (restarts or "enable")


def test_a_timer_that_is_taken_and_stands_still_is_no_lease(tested: dict[str, Outcome]) -> None:
    found, verdict = tested["timer stands still"][:2]
    assert found.timer is not None
    assert (found.timer.counts_down, found.timer.reverted_after_s) == (False, None)
    assert verdict.lease == "watchdog"
    assert "does not count down" in verdict.because


def test_a_timer_that_counts_down_and_ends_nothing_is_no_lease(tested: dict[str, Outcome]) -> None:
    found, verdict = tested["timer ends nothing"][:2]
    assert found.timer is not None
    assert (found.timer.counts_down, found.timer.reverted_after_s) == (True, None)
    assert found.restarts == {}
    assert verdict.lease == "watchdog"
    assert "counts down and it does not revert" in verdict.because


def test_registers_that_revert_without_the_power_are_no_lease_and_no_release(
    tested: dict[str, Outcome],
) -> None:
    found, verdict = tested["power sticks"][:2]
    assert found.timer is not None
    assert found.timer.reverted_after_s is not None
    assert found.timer.power_returned is False
    assert verdict.lease == "none"
    assert "let go" in verdict.because


def test_a_unit_that_acknowledges_and_ignores_is_not_driven(tested: dict[str, Outcome]) -> None:
    found, verdict = tested["ignores"][:2]
    assert (found.ended, found.read_back_s) == ("refused", None)
    assert "nothing reads back" in found.problem
    assert verdict.lease == "none"


def test_registers_that_take_it_and_power_that_does_not_follow_are_told_apart(
    tested: dict[str, Outcome],
) -> None:
    found, verdict = tested["power ignores"][:2]
    assert found.read_back_kw == pytest.approx(0.7)
    assert found.power is not None
    assert found.power.following == "not at all"
    assert found.timer is not None
    assert found.timer.power_returned is None
    assert verdict.lease == "none"


def test_a_unit_that_clamps_is_driven_and_said_to_clamp(tested: dict[str, Outcome]) -> None:
    found, verdict = tested["clamps"][:2]
    assert found.power is not None
    assert found.power.following == "partly"
    assert found.power.error_kw == pytest.approx(-0.2)
    assert verdict.lease == "revert_timer"
    assert any("clamps" in remark for remark in verdict.remarks)


def test_a_unit_that_goes_the_wrong_way_is_not_driven(tested: dict[str, Outcome]) -> None:
    found, verdict = tested["wrong way"][:2]
    assert found.power is not None
    assert found.power.following == "the wrong way"
    assert verdict.lease == "none"


def test_a_power_that_runs_away_ends_the_test_at_once(tested: dict[str, Outcome]) -> None:
    found, verdict = tested["runs away"][:2]
    assert (found.ended, found.timer) == ("runaway", None)
    assert verdict.lease == "none"


@pytest.mark.parametrize(("name", "target_kw"), [("123", 2.5), ("704", 2.5), ("124", 1.5)])
def test_limits_are_tested_below_what_the_unit_does(
    tested: dict[str, Outcome], name: str, target_kw: float
) -> None:
    found, verdict = tested[name][:2]
    assert found.power is not None
    assert found.power.following == "follows"
    assert found.power.asked_kw == pytest.approx(target_kw)
    assert found.timer is not None
    assert (found.timer.counts_down is None) is (name != "704")  # only that model says what is left
    assert (verdict.lease, verdict.restarts_on) == ("revert_timer", "enable")


def test_model_124_is_forced_where_its_maker_allows_it(tested: dict[str, Outcome]) -> None:
    found, verdict = tested["124 forced"][:2]
    assert found.power is not None
    assert (found.power.following, verdict.lease) == ("follows", "revert_timer")


def test_a_heartbeat_that_stops_is_seen_to_end_at_the_fallback(tested: dict[str, Outcome]) -> None:
    found, verdict = tested["heartbeat"][:2]
    assert found.timer is not None
    assert found.timer.reverted_after_s is None  # it has the register, and no timer
    assert found.heartbeat is not None
    assert found.heartbeat.held
    assert found.heartbeat.fell_back_after_s == pytest.approx(8.0, abs=1.5)
    assert (verdict.lease, verdict.fallback_kw) == ("heartbeat", pytest.approx(-0.5))


def test_a_register_that_does_not_take_its_old_value_back_is_said(
    tested: dict[str, Outcome],
) -> None:
    restored = tested["forgetful"].found.restored
    assert restored is not None
    assert restored.released
    assert restored.differs == ("704 WSetRvrtTms holds [0, 60] instead of [0, 0]",)


class Lab(NamedTuple):
    unit: sim.Battery
    pace: TestPace
    bench: SunSpecBench
    plan: Plan
    before: list[int]

    def trial(self, told: list[Progress] | None = None) -> Trial:
        return trial(self.bench, self.plan, self.pace, told)


@asynccontextmanager
async def lab(*, timeout_s: float = 5.0, **wanted: Any) -> AsyncIterator[Lab]:
    pace = TestPace()
    unit = sim.Battery(pace.now)
    async with on_bench(unit, timeout_s=timeout_s) as bench:
        plan = await planned(bench, "wset", **wanted)
        yield Lab(unit, pace, bench, plan, controls_of(unit))


async def test_another_master_in_the_middle_ends_the_test() -> None:
    async with lab() as here:
        here.pace.after(3.0, lambda: here.unit._put(704, "WSet", -3000.0))
        found = await here.trial().run()
    assert found.ended == "another master"
    assert "-3 kW" in found.problem
    assert found.restored is not None
    assert found.restored.released


async def test_an_interruption_restores_at_once_and_claims_nothing() -> None:
    async with lab() as here:
        running = here.trial()
        held: list[float | None] = []

        def interrupt() -> None:
            held.append(here.unit.commanded_kw())
            assert running.interrupt()

        here.pace.after(3.0, interrupt)
        found = await running.run()
        assert not running.interrupt()  # it is over: there is nothing to end
        assert controls_of(here.unit) == here.before
    assert held == [pytest.approx(0.7)]
    assert (found.ended, found.timer) == ("interrupted", None)
    assert found.restored is not None
    assert found.restored.whole
    assert judge(found).lease == "none"


async def test_an_interruption_before_the_first_write_writes_nothing() -> None:
    async with lab() as here:
        running = here.trial()
        assert running.interrupt()
        found = await running.run()
    assert (found.ended, found.requests, found.restored) == ("interrupted", 0, None)


async def test_a_cancellation_from_outside_restores_as_well() -> None:
    async with lab() as here, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(here.trial().run())
        here.pace.after(3.0, running.cancel)
        await asyncio.wait([running])
        assert running.cancelled()
        assert controls_of(here.unit) == here.before


async def test_an_error_of_our_own_restores_as_well() -> None:
    async with lab() as here:

        def broken(progress: Progress) -> None:
            if progress.left_s is not None and progress.step.startswith("it follows"):
                raise ZeroDivisionError

        with pytest.raises(ExceptionGroup):
            await Trial(here.bench, here.plan, here.pace, broken).run()
        assert controls_of(here.unit) == here.before


async def test_a_link_that_is_lost_for_a_while_is_waited_for_and_the_unit_restored() -> None:
    async with lab(timeout_s=0.25) as here:
        here.unit.ends = False  # nothing but the restoration ends it
        told: list[Progress] = []
        for after, silent in ((3.0, True), (10.0, False)):
            here.pace.after(after, partial(setattr, here.unit.faults, "silent", silent))
        found = await here.trial(told).run()
        assert controls_of(here.unit) == here.before
    assert found.ended == "link lost"
    assert any("NOT RESTORED YET" in each.step for each in told)
    assert found.restored is not None
    assert found.restored.whole


async def test_a_link_that_stays_lost_is_said_with_what_is_in_force_and_for_how_long() -> None:
    async with lab(timeout_s=0.25, restore_s=4.0, timer_s=40) as here:
        here.pace.after(3.0, partial(setattr, here.unit.faults, "silent", True))
        found = await here.trial().run()
    assert found.restored is not None
    assert not found.restored.released
    # 40 s were written, and 3 s until it went, 3 s until that was believed, 4 s of trying are over.
    assert "0.7 kW may be in force; its own timer was set to end it within 3" in (
        found.restored.in_force
    )
    assert "not seen to do: check the device" in found.restored.in_force
    assert judge(found).lease == "none"


async def test_nothing_is_written_to_another_unit_than_the_one_that_was_met() -> None:
    async with lab(restore_s=4.0) as here:
        here.unit._put(1, "SN", "somebody else")
        here.bench.reconnect()
        found = await here.trial().run()
        assert controls_of(here.unit) == here.before
    assert found.ended == "link lost"
    assert "somebody else" in found.problem
