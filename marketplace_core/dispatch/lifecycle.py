"""States of an order: everything that moves an order from one to another is `TRANSITIONS`.

A revised plan enters at intake as a new revision and walks the street again while the
order goes on: `REVISING` says which facts of it may befall an order that runs.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from marketplace_core.errors import FlexwayError
from marketplace_core.events import (
    DeliveryVerified,
    OrderAwarded,
    OrderFact,
    OrderInfeasible,
    OrderPlanned,
    OrderRejected,
    OrderRevised,
    OrderSettled,
    OrderStopped,
    OrderSubmitted,
    ReboundMeasured,
    SetpointsApplied,
    SetpointsIssued,
    SetpointsRefused,
    SetpointsUnconfirmed,
    SetpointsUnreachable,
    WindowClosed,
)


class OrderState(enum.Enum):
    """Where an order stands."""

    SUBMITTED = "submitted"
    """Accepted and durable."""
    REJECTED = "rejected"
    """No contract can serve it. Final."""
    AWARDED = "awarded"
    """Contracts are called."""
    INFEASIBLE = "infeasible"
    """No device can deliver any of it. Final."""
    PLANNED = "planned"
    """Every device's share is known; nothing was sent."""
    ISSUED = "issued"
    """Setpoints are journalled and may be on the wire; no device has confirmed."""
    DELIVERING = "delivering"
    """At least one device confirmed its setpoint."""
    VERIFIED = "verified"
    """At least one settlement period is verified and not booked yet."""
    STOPPED = "stopped"
    """Ended before its time. What was delivered until then is still verified and booked."""
    SETTLED = "settled"
    """Booked. A superseding delivery leads back to VERIFIED and is booked again."""


class TransitionError(FlexwayError):
    """A fact that cannot befall an order in its state: a bug in a stage, or a forged journal."""

    def __init__(self, state: OrderState | None, fact: type[OrderFact]) -> None:
        """`state` is None for an order nobody submitted."""
        name = "unknown" if state is None else state.value
        super().__init__(f"{fact.__name__} cannot befall an order that is {name}")
        self.state = state
        self.fact = fact


_S = OrderState

TRANSITIONS: Final[Mapping[tuple[OrderState | None, type[OrderFact]], OrderState]] = {
    (None, OrderSubmitted): _S.SUBMITTED,
    (_S.SUBMITTED, OrderAwarded): _S.AWARDED,
    (_S.SUBMITTED, OrderRejected): _S.REJECTED,
    (_S.AWARDED, OrderPlanned): _S.PLANNED,
    (_S.AWARDED, OrderInfeasible): _S.INFEASIBLE,
    # Setpoints that were never sent in time end as unconfirmed, without an issue.
    (_S.PLANNED, SetpointsIssued): _S.ISSUED,
    (_S.PLANNED, SetpointsUnconfirmed): _S.PLANNED,
    # Devices have different notice: later batches follow the outcomes of earlier ones.
    (_S.ISSUED, SetpointsIssued): _S.ISSUED,
    (_S.ISSUED, SetpointsApplied): _S.DELIVERING,
    (_S.ISSUED, SetpointsRefused): _S.ISSUED,
    (_S.ISSUED, SetpointsUnreachable): _S.ISSUED,
    (_S.ISSUED, SetpointsUnconfirmed): _S.ISSUED,
    (_S.DELIVERING, SetpointsIssued): _S.DELIVERING,
    (_S.DELIVERING, SetpointsApplied): _S.DELIVERING,
    (_S.DELIVERING, SetpointsRefused): _S.DELIVERING,
    (_S.DELIVERING, SetpointsUnreachable): _S.DELIVERING,
    (_S.DELIVERING, SetpointsUnconfirmed): _S.DELIVERING,
    # Windows close by the clock, whatever became of the setpoints.
    (_S.PLANNED, WindowClosed): _S.PLANNED,
    (_S.ISSUED, WindowClosed): _S.ISSUED,
    (_S.DELIVERING, WindowClosed): _S.DELIVERING,
    (_S.PLANNED, DeliveryVerified): _S.VERIFIED,
    (_S.ISSUED, DeliveryVerified): _S.VERIFIED,
    (_S.DELIVERING, DeliveryVerified): _S.VERIFIED,
    # The first periods are verified while later ones are still being delivered.
    (_S.VERIFIED, SetpointsIssued): _S.VERIFIED,
    (_S.VERIFIED, SetpointsApplied): _S.VERIFIED,
    (_S.VERIFIED, SetpointsRefused): _S.VERIFIED,
    (_S.VERIFIED, SetpointsUnreachable): _S.VERIFIED,
    (_S.VERIFIED, SetpointsUnconfirmed): _S.VERIFIED,
    (_S.VERIFIED, WindowClosed): _S.VERIFIED,
    (_S.VERIFIED, DeliveryVerified): _S.VERIFIED,
    (_S.VERIFIED, OrderSettled): _S.SETTLED,
    # After a restart the outcome of an old setpoint may be learnt after the booking,
    # and late readings supersede. Nothing is issued any more.
    (_S.SETTLED, SetpointsApplied): _S.SETTLED,
    (_S.SETTLED, SetpointsRefused): _S.SETTLED,
    (_S.SETTLED, SetpointsUnreachable): _S.SETTLED,
    (_S.SETTLED, SetpointsUnconfirmed): _S.SETTLED,
    (_S.SETTLED, WindowClosed): _S.SETTLED,
    (_S.SETTLED, DeliveryVerified): _S.VERIFIED,
    # What devices take back after the order changes nothing about it.
    (_S.PLANNED, ReboundMeasured): _S.PLANNED,
    (_S.ISSUED, ReboundMeasured): _S.ISSUED,
    (_S.DELIVERING, ReboundMeasured): _S.DELIVERING,
    (_S.VERIFIED, ReboundMeasured): _S.VERIFIED,
    (_S.SETTLED, ReboundMeasured): _S.SETTLED,
    # Somebody ends an order early: nothing more is issued, what was sent comes to its end.
    (_S.SUBMITTED, OrderStopped): _S.STOPPED,
    (_S.AWARDED, OrderStopped): _S.STOPPED,
    (_S.PLANNED, OrderStopped): _S.STOPPED,
    (_S.ISSUED, OrderStopped): _S.STOPPED,
    (_S.DELIVERING, OrderStopped): _S.STOPPED,
    (_S.VERIFIED, OrderStopped): _S.STOPPED,
    (_S.STOPPED, SetpointsIssued): _S.STOPPED,
    (_S.STOPPED, SetpointsApplied): _S.STOPPED,
    (_S.STOPPED, SetpointsRefused): _S.STOPPED,
    (_S.STOPPED, SetpointsUnreachable): _S.STOPPED,
    (_S.STOPPED, SetpointsUnconfirmed): _S.STOPPED,
    (_S.STOPPED, WindowClosed): _S.STOPPED,
    (_S.STOPPED, DeliveryVerified): _S.STOPPED,
    (_S.STOPPED, ReboundMeasured): _S.STOPPED,
    (_S.STOPPED, OrderSettled): _S.SETTLED,
}


STOPPABLE: Final = frozenset(
    state for state, fact in TRANSITIONS if fact is OrderStopped and state is not None
)
"""States in which an order can be ended early."""

REVISING: Final = frozenset({OrderRevised, OrderAwarded, OrderPlanned, OrderInfeasible})
"""Facts of a later revision that leave an order where it stands."""

CALLS_NOTHING: Final = frozenset({_S.REJECTED, _S.INFEASIBLE, _S.STOPPED})
"""States in which an order uses nothing of its contracts any more."""
RUNNING: Final = frozenset({_S.PLANNED, _S.ISSUED, _S.DELIVERING, _S.VERIFIED})
"""States in which an order can be revised; its last revision may be planned after it settled."""

UNDER_WAY: Final = RUNNING | {_S.SUBMITTED, _S.AWARDED}
"""States of an order that runs, or will once it is planned."""


def advance(state: OrderState | None, fact: type[OrderFact], revision: int = 0) -> OrderState:
    """State of an order after a fact of one revision; None is an order not submitted yet.

    Raises:
        TransitionError: the fact cannot befall an order in this state.
    """
    following = TRANSITIONS.get((state, fact))
    if revision > 0 and fact in REVISING and state is not None:
        late = state in {_S.SETTLED, _S.STOPPED} and fact is not OrderRevised
        following = state if state in RUNNING or late else None
    if following is None:
        raise TransitionError(state, fact)
    return following
