"""An order beside others: no device is called twice, and none is measured by another's setpoint."""

from __future__ import annotations

from datetime import timedelta

from marketplace_core.dispatch.others import Others, others_of
from marketplace_core.dispatch.planner import plan, replan
from marketplace_core.events import OrderInfeasible, OrderPlanned
from marketplace_core.intervals import Interval
from marketplace_core.units import Kw
from tests.harness.running_order import MINUTE, SPAN, START, planned
from tests.unit.marketplace_core.test_planner import battery, call, order

AFTER = Interval(SPAN.end, SPAN.end + timedelta(hours=1))


def test_what_another_order_has_meanwhile_is_taken() -> None:
    others = others_of([planned()], SPAN, START)
    assert others.taken == {"bat-1": "ord_1", "bat-2": "ord_1"}
    assert others_of([planned()], AFTER, START).taken == {}


def test_a_device_under_a_setpoint_is_referred_to_what_it_would_do_by_itself() -> None:
    measured = battery("bat-1", reference=4.0)
    during = others_of([planned()], AFTER, START + MINUTE)
    assert during.referred(measured).reference_kw == 0.0
    assert during.referred(battery("bat-9", reference=4.0)).reference_kw == 4.0
    assert others_of([planned()], AFTER, SPAN.end).referred(measured).reference_kw == 4.0


def test_a_taken_device_is_left_out_and_the_order_says_why() -> None:
    others = Others({"bat-1": "ord_2"})
    both = {"ctr_1": [battery("bat-1"), battery("bat-9")]}
    result = plan(order(), [call(3)], both, others=others)
    assert isinstance(result, OrderPlanned)
    assert [each.device_id for each in result.allocations] == ["bat-9"]
    assert [(e.device_id, e.reason) for e in result.excluded] == [
        ("bat-1", "it already serves another order")
    ]
    alone = plan(order(), [call(3)], {"ctr_1": [battery("bat-1")]}, others=others)
    assert isinstance(alone, OrderInfeasible)


def test_the_next_order_builds_on_the_device_itself() -> None:
    others = Others({}, {"bat-1": Kw(0.0)})
    result = plan(order(), [call(3)], {"ctr_1": [battery("bat-1", reference=4.0)]}, others=others)
    assert isinstance(result, OrderPlanned)
    (share,) = result.allocations
    assert (share.reference_kw, share.power_kw) == (0.0, 3.0)


def test_a_new_plan_takes_no_device_of_another_order_either() -> None:
    others = Others({"bat-9": "ord_2"}, {})
    fleet = {"ctr_1": [battery("bat-1"), battery("bat-9")]}
    first = plan(order(), [call(3)], {"ctr_1": [battery("bat-1")]})
    assert isinstance(first, OrderPlanned)
    again = replan(order(), [call(6)], fleet, previous=first.allocations, short=(), others=others)
    assert isinstance(again, OrderPlanned)
    assert [each.device_id for each in again.allocations] == ["bat-1"]
