"""The one transition table."""

from __future__ import annotations

from typing import get_args

import pytest

from marketplace_core import events
from marketplace_core.dispatch.lifecycle import (
    REVISING,
    TRANSITIONS,
    OrderState,
    TransitionError,
    advance,
)
from marketplace_core.events import (
    DeliveryVerified,
    OrderAwarded,
    OrderFact,
    OrderInfeasible,
    OrderPlanned,
    OrderRejected,
    OrderSettled,
    OrderSubmitted,
    SetpointsApplied,
    SetpointsIssued,
    SetpointsRefused,
    SetpointsUnconfirmed,
    SetpointsUnreachable,
    StreetFact,
    WindowClosed,
)

OUTCOMES = (SetpointsApplied, SetpointsRefused, SetpointsUnreachable, SetpointsUnconfirmed)


def walk(*facts: type[OrderFact]) -> OrderState | None:
    state: OrderState | None = None
    for fact in facts:
        state = advance(state, fact)
    return state


TO_PLANNED = (OrderSubmitted, OrderAwarded, OrderPlanned)
TO_SETTLED = (
    *TO_PLANNED, SetpointsIssued, SetpointsApplied, WindowClosed, DeliveryVerified, OrderSettled,
)  # fmt: skip


def test_every_street_fact_moves_some_order() -> None:
    assert {fact for _, fact in TRANSITIONS} | REVISING == set(get_args(StreetFact))


def test_every_state_is_reached() -> None:
    assert set(TRANSITIONS.values()) == set(OrderState)


def test_the_whole_street_ends_settled() -> None:
    states: list[OrderState | None] = [None]
    for fact in TO_SETTLED:
        states.append(advance(states[-1], fact))
    assert states == [
        None, OrderState.SUBMITTED, OrderState.AWARDED, OrderState.PLANNED, OrderState.ISSUED,
        OrderState.DELIVERING, OrderState.DELIVERING, OrderState.VERIFIED, OrderState.SETTLED,
    ]  # fmt: skip


def test_rejected_and_infeasible_are_final() -> None:
    for end in (walk(OrderSubmitted, OrderRejected), walk(OrderSubmitted, OrderAwarded,
                                                          OrderInfeasible)):  # fmt: skip
        for fact in get_args(StreetFact):
            with pytest.raises(TransitionError):
                advance(end, fact)


def test_batches_repeat_while_delivering_and_after_the_first_verification() -> None:
    facts = (*TO_PLANNED, SetpointsIssued, *OUTCOMES, SetpointsIssued, *OUTCOMES)
    assert walk(*facts) is OrderState.DELIVERING
    later = (*facts, WindowClosed, DeliveryVerified, SetpointsIssued, *OUTCOMES, WindowClosed)
    assert walk(*later) is OrderState.VERIFIED


def test_an_order_that_no_device_confirmed_is_never_delivering() -> None:
    facts = (*TO_PLANNED, SetpointsIssued, SetpointsRefused, SetpointsUnreachable,
             SetpointsUnconfirmed, WindowClosed)  # fmt: skip
    assert walk(*facts) is OrderState.ISSUED
    assert walk(*facts, DeliveryVerified, OrderSettled) is OrderState.SETTLED


def test_an_order_slept_through_is_still_verified_and_settled() -> None:
    facts = (*TO_PLANNED, SetpointsUnconfirmed, WindowClosed, DeliveryVerified, OrderSettled)
    assert walk(*facts) is OrderState.SETTLED


def test_a_superseding_delivery_is_booked_again() -> None:
    assert walk(*TO_SETTLED, WindowClosed) is OrderState.SETTLED
    again = (*TO_SETTLED, WindowClosed, DeliveryVerified)
    assert walk(*again) is OrderState.VERIFIED
    assert walk(*again, OrderSettled) is OrderState.SETTLED


def test_nothing_is_issued_after_the_booking_but_old_outcomes_may_be_learnt() -> None:
    for outcome in OUTCOMES:
        assert walk(*TO_SETTLED, outcome) is OrderState.SETTLED
    with pytest.raises(TransitionError, match=r"SetpointsIssued cannot befall .* settled"):
        walk(*TO_SETTLED, SetpointsIssued)


@pytest.mark.parametrize(
    "facts",
    [
        (OrderAwarded,),
        (OrderSubmitted, OrderSubmitted),
        (OrderSubmitted, OrderPlanned),
        (OrderSubmitted, OrderAwarded, SetpointsIssued),
        (OrderSubmitted, OrderAwarded, WindowClosed),
        (*TO_PLANNED, OrderSettled),
        (*TO_PLANNED, SetpointsApplied),
        (*TO_PLANNED, OrderInfeasible),
        (*TO_PLANNED, SetpointsIssued, OrderSettled),
        (*TO_SETTLED, OrderSettled),
    ],
)
def test_impossible_facts_are_refused(facts: tuple[type[OrderFact], ...]) -> None:
    with pytest.raises(TransitionError):
        walk(*facts)


def test_no_transition_leads_from_right_to_left() -> None:
    # A state may only be left for one further right, but for the booked order that is
    # verified again.
    order = list(OrderState)
    back = {
        (state, fact)
        for (state, fact), following in TRANSITIONS.items()
        if state is not None and order.index(following) < order.index(state)
    }
    assert back == {(OrderState.SETTLED, events.DeliveryVerified)}
