"""One running order, followed from fact to fact: who is judged, by which setpoint, since when."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from gateway.running import Running
from marketplace_core.dispatch.order import Shortfall
from marketplace_core.dispatch.tracking import TRACKING, Progress, track
from marketplace_core.events import (
    OrderFact,
    OrderInfeasible,
    OrderRejected,
    OrderRevised,
    OrderSettled,
)
from marketplace_core.units import Kw
from tests.harness.running_order import (
    CONTRACT_ID,
    DEVICES,
    MINUTE,
    ORDER_ID,
    SPAN,
    START,
    accepted,
    applied,
    begun,
    issued,
    order,
    planned,
    profiles,
    reading,
    refused,
    setpoint,
    unreachable,
)

REST = MINUTE * TRACKING.rest_intervals


def after(*facts: OrderFact) -> Running:
    running = Running(profiles())
    hear(running, facts)
    return running


def hear(running: Running, facts: Iterable[OrderFact]) -> list[tuple[str, datetime, str]]:
    return [declined for fact in facts for declined in running.heard(fact)]


def judge(running: Running, device: str, first: float, *powers: float) -> Progress:
    """The device after readings of so many minutes in a row."""
    for minute, kw in enumerate(powers):
        one = reading(device, first + minute, kw)
        running.tracked[device] = track(running.tracked[device], one)
    return running.tracked[device].progress


def test_nobody_is_judged_before_a_setpoint_is_confirmed() -> None:
    running = after(*accepted(), planned(), issued(*DEVICES))
    assert running.tracked == {}
    hear(running, [applied("bat-1")])
    assert set(running.tracked) == {"bat-1"}


def test_a_device_is_judged_from_its_confirmation_on() -> None:
    running = after(*accepted(), planned(), issued("bat-1"), applied("bat-1", at=START + MINUTE))
    assert judge(running, "bat-1", 0.0, 0.0) is Progress.UNKNOWN
    assert judge(running, "bat-1", 0.5, 0.0) is Progress.UNKNOWN  # it began before
    assert judge(running, "bat-1", 1.0, 0.0, 0.0) is Progress.IGNORES


def test_a_setpoint_confirmed_ahead_of_time_counts_from_when_it_is_valid() -> None:
    early = START - 10 * MINUTE
    running = after(*accepted(), planned(), issued("bat-1"), applied("bat-1", at=early))
    assert running.tracked["bat-1"].since == START
    assert judge(running, "bat-1", -2.0, 0.0, 0.0) is Progress.UNKNOWN


def test_a_new_setpoint_ends_judging_by_the_old_one_until_it_is_applied() -> None:
    running = after(*begun())
    assert judge(running, "bat-1", 0.0, 0.0, 0.0) is Progress.IGNORES
    hear(running, [issued("bat-1", revision=1)])
    assert set(running.tracked) == {"bat-2"}
    assert running.shortfalls() == ()
    hear(running, [applied("bat-1", at=START + 5 * MINUTE, revision=1)])
    assert running.tracked["bat-1"].progress is Progress.UNKNOWN
    assert running.tracked["bat-1"].since == START + 5 * MINUTE


def test_a_late_confirmation_says_nothing_about_a_newer_plan() -> None:
    running = after(*begun())
    newer = planned(START + 5 * MINUTE, revision=1)
    half = tuple(
        msgspec.structs.replace(each, power_kw=Kw(each.power_kw / 2)) for each in newer.allocations
    )
    hear(running, [issued("bat-1", revision=1)])  # of the plan before, still on its way
    hear(running, [msgspec.structs.replace(newer, revision=2, allocations=half)])
    hear(running, [applied("bat-1", at=START + 6 * MINUTE, revision=1)])
    assert "bat-1" not in running.tracked


def test_a_confirmation_of_what_was_never_planned_means_nothing() -> None:
    assert after(*accepted(), issued("bat-1"), applied("bat-1")).tracked == {}
    assert after(*accepted(), planned(), applied("bat-1")).tracked == {}


def test_after_a_restart_nothing_is_judged_until_it_is_confirmed_again() -> None:
    running = after(*begun())
    running.resumed(START + 20 * MINUTE)
    assert running.tracked == {}
    hear(running, [applied("bat-1", at=START + 21 * MINUTE)])
    assert set(running.tracked) == {"bat-1"}
    assert judge(running, "bat-1", 20.0, 0.0, 0.0) is Progress.SHORT  # one of the two counts


def test_after_a_restart_devices_get_the_same_rest_as_after_a_plan() -> None:
    running, now = after(*begun()), START + 20 * MINUTE
    assert running.due(now, REST, MINUTE)
    running.resumed(now)
    assert not running.due(now, REST, MINUTE)
    assert not running.due(now + REST - timedelta(seconds=1), REST, MINUTE)
    assert running.due(now + REST, REST, MINUTE)


def test_a_restart_before_the_start_changes_nothing_about_the_rest() -> None:
    running = after(*begun())
    running.resumed(START - 30 * MINUTE)
    assert not running.due(START + REST - MINUTE, REST, MINUTE)
    assert running.due(START + REST, REST, MINUTE)


def test_an_order_is_looked_at_after_its_rest_while_enough_of_it_is_left() -> None:
    assert not after(*accepted()).due(START + REST, REST, MINUTE)  # nothing is planned
    running = after(*begun())
    assert not running.due(START + REST - MINUTE, REST, MINUTE)
    assert running.due(START + REST, REST, MINUTE)
    assert running.due(SPAN.end - 3 * MINUTE, REST, MINUTE)
    assert not running.due(SPAN.end - 2 * MINUTE, REST, MINUTE)


def test_a_new_plan_begins_a_new_rest() -> None:
    running = after(*begun(), planned(START + 10 * MINUTE, revision=1))
    assert not running.due(START + 10 * MINUTE + REST - MINUTE, REST, MINUTE)
    assert running.due(START + 10 * MINUTE + REST, REST, MINUTE)


def test_an_owner_that_declined_is_told_of_and_a_device_that_refused_is_not() -> None:
    running = after(*accepted(), planned(), issued(*DEVICES))
    at = START + MINUTE
    assert hear(running, [refused("bat-1", declined=True, at=at)]) == [("bat-1", at, "not now")]
    assert hear(running, [refused("bat-2", declined=False, at=at)]) == []


def test_a_device_that_could_not_be_told_owes_its_whole_share_until_it_confirms() -> None:
    running = after(*begun(), unreachable("bat-1"))
    assert set(running.tracked) == {"bat-2"}
    (short,) = running.shortfalls()
    assert (short.device_id, short.contract_id) == ("bat-1", CONTRACT_ID)
    assert (short.delivered_kw, short.reason) == (0.0, "silent")
    assert running.lacking([short]) == 4.0
    hear(running, [applied("bat-1", at=START + 5 * MINUTE)])
    assert running.shortfalls() == ()


def test_a_device_that_was_let_go_owes_its_share_and_is_judged_no_more() -> None:
    running = after(*begun())
    running.let_go(["bat-1", "elsewhere"], "stopped")
    hear(running, [applied("bat-1", at=START + MINUTE)])  # overtaken by the stop
    assert set(running.tracked) == {"bat-2"}
    assert [(s.device_id, s.delivered_kw, s.reason) for s in running.shortfalls()] == [
        ("bat-1", 0.0, "stopped")
    ]


def test_a_setpoint_that_ends_before_its_order_was_ended() -> None:
    running = after(*begun())
    assert not running.ended(setpoint("bat-1"))
    assert running.ended(msgspec.structs.replace(setpoint("bat-1"), valid_until=START + MINUTE))


def test_what_is_lacking_is_the_share_less_what_is_measured() -> None:
    running = after(*begun())
    assert judge(running, "bat-1", 0.0, 1.0, 1.0) is Progress.CLAMPS
    assert judge(running, "bat-2", 0.0, 4.0, 4.0) is Progress.FOLLOWS
    assert running.lacking(running.shortfalls()) == 3.0


def test_a_revision_says_how_much_is_made_up_for() -> None:
    running = after(*begun())
    short = Shortfall(
        device_id="bat-1", contract_id=CONTRACT_ID, delivered_kw=Kw(1.0), reason="clamps"
    )
    revised = OrderRevised(
        order_id=ORDER_ID, revision=1, order=order(), short=(short,), missing=(), reason="short"
    )
    hear(running, [revised])
    assert (running.revision, running.made_up) == (1, 3.0)


def test_an_order_is_over_once_it_is_settled_rejected_or_cannot_be_delivered_at_all() -> None:
    assert not after(*begun()).over
    assert after(*begun(), OrderSettled(order_id=ORDER_ID, version=1, lines=(), postings=())).over
    assert after(accepted()[0], OrderRejected(order_id=ORDER_ID, reason="no contract")).over
    none = OrderInfeasible(order_id=ORDER_ID, missing_kw=Kw(8.0), excluded=())
    assert after(*accepted(), none).over
    later = OrderInfeasible(order_id=ORDER_ID, revision=1, missing_kw=Kw(8.0), excluded=())
    assert not after(*begun(), later).over
