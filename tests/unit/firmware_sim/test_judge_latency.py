"""How soon a fault was flagged, counted from truth and report, never from the flag's own word."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from firmware_sim.judge_faults import Happened, match
from firmware_sim.planning import Planned
from firmware_sim.world import Fault
from marketplace_core.intervals import instant
from marketplace_core.verification.flags import FlagKind

START = instant("2017-07-21T00:00:00Z")
MINUTE = timedelta(minutes=1)
Report = dict[str, Any]


def fault(day: Planned, kind: FlagKind, at: datetime = START) -> Fault:
    battery = day.scenario.homes[0].battery
    return Fault(device=battery, kind=kind, at=at, until=START + timedelta(hours=2))


def report(one: Fault, flagged: datetime, **told: datetime | None) -> Report:
    row = {name: None if at is None else at.isoformat() for name, at in told.items()}
    earlier = {"in_force_at": "2017-07-20T19:00:00Z", "issued_at": "2017-07-20T19:00:00Z"}
    return {
        "orders": [
            {"id": "ord_midday", "end": "2017-07-20T21:00:00Z"},
            {"id": "ord_evening", "end": "2017-07-21T02:00:00Z"},
        ],
        "devices": [
            {"device": one.device, "order": "ord_midday", **earlier},
            {"device": one.device, "order": "ord_evening", **row},
        ],
        "flags": [
            {"device": one.device, "kind": one.kind.value, "at": flagged.isoformat(),
             "after_intervals": 0.0},
        ],
    }  # fmt: skip


def judged(day: Planned, one: Fault, said: Report) -> Happened:
    (found,), _ = match(day.scenario, [one], said)
    return found


def test_a_flag_that_comes_hours_late_is_late_whatever_it_says_of_itself(day: Planned) -> None:
    one = fault(day, FlagKind.IGNORES)
    said = report(one, START + timedelta(hours=1.5), in_force_at=START, first_reading_at=START)
    assert judged(day, one, said).after_intervals == 90.0


@pytest.mark.parametrize("kind", [FlagKind.IGNORES, FlagKind.CLAMPS])
def test_what_follows_no_setpoint_shows_from_when_one_is_in_force(
    day: Planned, kind: FlagKind
) -> None:
    one = fault(day, kind)
    told = START + 30 * MINUTE
    said = report(one, told + 2 * MINUTE, in_force_at=told, first_reading_at=told)
    found = judged(day, one, said)
    assert (found.visible_from, found.after_intervals) == (told, 2.0)


def test_a_fault_that_begins_under_a_setpoint_shows_from_its_beginning(day: Planned) -> None:
    one = fault(day, FlagKind.IGNORES, at=START + 40 * MINUTE)
    said = report(one, START + 43 * MINUTE, in_force_at=START, first_reading_at=START)
    assert judged(day, one, said).after_intervals == 3.0


def test_an_interval_that_began_before_the_setpoint_does_not_count(day: Planned) -> None:
    one = fault(day, FlagKind.CLAMPS)
    told, first = START + timedelta(seconds=10), START + timedelta(seconds=28)
    said = report(one, first + 2 * MINUTE, in_force_at=told, first_reading_at=first)
    found = judged(day, one, said)
    assert (found.visible_from, found.after_intervals) == (first, 2.0)


def test_missing_readings_put_it_off_by_less_than_an_interval(day: Planned) -> None:
    one = fault(day, FlagKind.IGNORES)
    first = START + timedelta(hours=1, seconds=28)
    said = report(one, first + 2 * MINUTE, in_force_at=START, first_reading_at=first)
    found = judged(day, one, said)
    assert found.visible_from == START + timedelta(seconds=28)
    assert found.after_intervals == 62.0


def test_what_does_not_depend_on_setpoints_shows_at_once(day: Planned) -> None:
    one = fault(day, FlagKind.TIMES_OUT)
    said = report(one, START + 3 * MINUTE, in_force_at=START + 2 * MINUTE)
    assert judged(day, one, said).after_intervals == 3.0


def test_an_owner_declines_from_when_it_was_asked(day: Planned) -> None:
    one = fault(day, FlagKind.OPTS_OUT)
    asked = START + timedelta(minutes=15, seconds=7)
    said = report(one, asked + MINUTE, issued_at=asked, in_force_at=None)
    assert judged(day, one, said).after_intervals == 1.0


def test_a_fault_that_nobody_flagged_has_no_delay(day: Planned) -> None:
    one = fault(day, FlagKind.IGNORES)
    said = report(one, START, in_force_at=START, first_reading_at=START)
    said["flags"] = []
    assert judged(day, one, said).after_intervals is None
