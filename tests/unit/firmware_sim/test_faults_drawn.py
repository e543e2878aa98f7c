"""Every day has every fault, where it can be seen, never two on a device, clear of incidents."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from firmware_sim.faults import acted_kw, by_device, draw_incidents
from firmware_sim.planning import Planned, Request, plan
from firmware_sim.randomness import stream
from firmware_sim.world import Fault
from marketplace_core.units import Direction
from marketplace_core.verification.flags import FlagKind
from tests.harness.days import DATA

AT = datetime(2017, 7, 20, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module", params=range(1, 7))
def planned(request: pytest.FixtureRequest) -> Planned:
    return plan(Request(seed=request.param), DATA)


def test_all_seven_kinds_happen_and_no_device_has_two(planned: Planned) -> None:
    faults = planned.world.faults
    assert {fault.kind for fault in faults} == set(FlagKind)
    assert len({fault.device for fault in faults}) == len(faults) == 7
    assert all(fault.at < fault.until for fault in faults)


def test_each_happens_inside_an_event_in_whole_minutes_and_for_as_long_as_it_should(
    planned: Planned,
) -> None:
    market = planned.scenario.market
    spans = [event.interval for event in market.events]
    evening = market.event(Direction.UP).interval
    lasting = {FlagKind.TIMES_OUT: (15, 25), FlagKind.OFFLINE: (20, 40)}
    for fault in planned.world.faults:
        assert (fault.at - market.sim_start) % MINUTE == timedelta(0)
        if fault.kind is FlagKind.OPTS_OUT:
            assert fault.at < evening.start < fault.until
        else:
            assert any(s.start <= fault.at and fault.until <= s.end for s in spans)
        if fault.kind in (FlagKind.IGNORES, FlagKind.CLAMPS):
            assert (fault.at, fault.until) == (evening.start, evening.end)
        if fault.kind in lasting:
            low, high = lasting[fault.kind]
            assert low * MINUTE <= fault.until - fault.at <= high * MINUTE


def test_each_device_is_of_the_kind_that_can_have_the_fault(planned: Planned) -> None:
    scenario = planned.scenario
    protocols = scenario.protocols()
    batteries = {home.battery for home in scenario.homes}
    for fault in planned.world.faults:
        if fault.kind in (FlagKind.IGNORES, FlagKind.CLAMPS, FlagKind.TIMES_OUT):
            assert fault.device in batteries
        elif fault.kind is FlagKind.OPTS_OUT:
            assert fault.device in {site.id for site in scenario.sites[:2]}
        else:
            assert protocols[fault.device] == "mqtt"


def test_messages_go_out_minutes_apart(planned: Planned) -> None:
    faults = {fault.kind: fault for fault in planned.world.faults}
    for kind, count in ((FlagKind.MALFORMED, 3), (FlagKind.REPLAYS, 2)):
        moments = faults[kind].moments
        assert len(moments) == count
        gaps = [b - a for a, b in itertools.pairwise(moments)]
        assert all(gap >= 3 * MINUTE for gap in gaps)
        assert faults[kind].at == moments[0] < faults[kind].until


def test_incidents_are_public_inside_their_events_and_no_fault_is_near(planned: Planned) -> None:
    scenario = planned.scenario
    lost, killed = scenario.incidents
    assert lost.until == lost.at + 2 * MINUTE
    assert scenario.market.event(Direction.DOWN).interval.contains(lost.at)
    assert scenario.market.event(Direction.UP).interval.contains(killed.at)
    long = (FlagKind.IGNORES, FlagKind.CLAMPS, FlagKind.OPTS_OUT)
    for fault in planned.world.faults:
        for incident in scenario.incidents:
            over = incident.until or incident.at
            clear = fault.until <= incident.at - 8 * MINUTE or fault.at >= over + 8 * MINUTE
            assert clear or fault.kind in long


def test_another_seed_draws_otherwise_and_the_same_one_the_same(day: Planned) -> None:
    market = day.scenario.market
    assert draw_incidents(market, stream(1, "x")) == draw_incidents(market, stream(1, "x"))
    draws = {
        tuple((fault.kind, fault.device, fault.at) for fault in one.world.faults)
        for one in (day, plan(Request(seed=2), DATA), plan(Request(seed=3), DATA))
    }
    assert len(draws) == 3


def fault(kind: FlagKind, share: float = 0.0) -> Fault:
    return Fault(device="d", kind=kind, at=AT, until=AT + 5 * MINUTE, share=share)


@pytest.mark.parametrize(
    ("one", "told", "acted"),
    [
        (fault(FlagKind.IGNORES), 2.0, None),
        (fault(FlagKind.CLAMPS, 0.4), 2.0, 0.8),
        (fault(FlagKind.CLAMPS, 0.4), None, None),
        (fault(FlagKind.OFFLINE), 2.0, 2.0),
    ],
)
def test_a_fault_acts_between_command_and_physics_while_it_lasts(
    one: Fault, told: float | None, acted: float | None
) -> None:
    assert acted_kw((one,), AT, told) == (acted if acted is None else pytest.approx(acted))
    for outside in (AT - MINUTE, one.until):
        assert acted_kw((one,), outside, told) == told


def test_faults_are_found_by_device() -> None:
    one = fault(FlagKind.IGNORES)
    assert by_device([one]) == {"d": (one,)}
