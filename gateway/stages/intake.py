"""Intake: accept an order or refuse it, by the market's rules. Where the street begins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
from sqlalchemy import Connection

from gateway.store.facts import record_fact
from gateway.store.market import (
    add_order,
    need_by_id,
    order_by_id,
    set_order_revision,
    stop_order,
)
from gateway.store.setpoints import end_setpoints
from gateway.store.writer import Transaction
from marketplace_core.commands import RevisePlan, SubmitOrder
from marketplace_core.dispatch.lifecycle import RUNNING, STOPPABLE, OrderState
from marketplace_core.dispatch.order import Order
from marketplace_core.errors import NotFoundError, RejectedError
from marketplace_core.events import OrderFact, OrderRevised, OrderStopped, OrderSubmitted
from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.ports import Clock
from marketplace_core.procurement.need import Need

CONSUMES: frozenset[type[OrderFact]] = frozenset()
EMITS: frozenset[type[OrderFact]] = frozenset({OrderSubmitted, OrderRevised, OrderStopped})


class Intake:
    """Turns `SubmitOrder` into the first fact of an order, `RevisePlan` into that of a revision."""

    name = "intake"
    consumes = CONSUMES
    emits = EMITS

    def __init__(self, *, clock: Clock, grid: SettlementGrid, new_id: Callable[[str], str]) -> None:
        self._clock = clock
        self._grid = grid
        self._new_id = new_id

    def submit(self, transaction: Transaction, buyer: str, command: SubmitOrder) -> Order:
        """Journal an order; RejectedError names the field and the rule that refuses it."""
        order = self.draft(transaction.connection, buyer, command, self._new_id("ord"))
        add_order(transaction.connection, order, OrderState.SUBMITTED)
        transaction.append(order.id, OrderSubmitted(order_id=order.id, order=order))
        return order

    def draft(
        self, connection: Connection, buyer: str, command: SubmitOrder, order_id: str
    ) -> Order:
        """The order that a command asks for, once the rules let it pass. Writes nothing."""
        need, state = need_by_id(connection, command.need_id)
        self._check(need, state, buyer, command)
        return Order(
            id=order_id,
            buyer=buyer,
            need_id=need.id,
            feeder=need.feeder,
            direction=need.direction,
            kw=command.kw,
            interval=command.interval,
        )

    def stop(
        self, transaction: Transaction, order_id: str, *, by: str, reason: str
    ) -> OrderStopped | None:
        """End an order early; None when it was stopped before.

        Its setpoints end with it in the same transaction, so that none is issued again, also
        after a restart. RejectedError when there is nothing left to stop.
        """
        connection, now = transaction.connection, self._clock.now()
        row = order_by_id(connection, order_id)
        if row.state is OrderState.STOPPED:
            return None
        if row.state not in STOPPABLE or row.order.interval.end <= now:
            what = row.state.value if row.state not in STOPPABLE else "over"
            raise RejectedError(
                f"order {order_id} is {what}", field="order_id",
                rule="an order is stopped before it ends",
            )  # fmt: skip
        fact = OrderStopped(order_id=order_id, at=now, by=by, reason=reason)
        record_fact(transaction, fact)
        stop_order(connection, order_id, now)
        end_setpoints(connection, now, order_id=order_id)
        return fact

    def halt(self, transaction: Transaction, order_id: str, by: str, reason: str) -> None:
        """End an order early unless it has ended by itself."""
        with contextlib.suppress(RejectedError):  # raised before anything is written
            self.stop(transaction, order_id, by=by, reason=reason)

    def revise(self, transaction: Transaction, command: RevisePlan) -> bool:
        """Let a running order in again; False when that revision is not the next one any more."""
        row = order_by_id(transaction.connection, command.order_id)
        end = row.order.interval.end
        running = row.state in RUNNING and command.since < end
        if not running or command.revision != row.revision + 1:
            return False
        order = msgspec.structs.replace(
            row.order, revision=command.revision, interval=Interval(command.since, end)
        )
        set_order_revision(transaction.connection, order.id, order.revision)
        fact = OrderRevised(
            order_id=order.id, revision=order.revision, order=order, short=command.short,
            missing=command.missing, reason=command.reason,
        )  # fmt: skip
        record_fact(transaction, fact)
        return True

    def _check(self, need: Need, state: str, buyer: str, command: SubmitOrder) -> None:
        span = command.interval
        if need.buyer != buyer:
            # The same words as for a need that does not exist: nobody learns of others' needs.
            raise NotFoundError("need", need.id)
        if state != "awarded":
            raise RejectedError(
                f"need {need.id} is {state}", field="need_id",
                rule="only a cleared need can be called", remedy="clear its auction first",
            )  # fmt: skip
        if command.kw <= 0:
            raise RejectedError(f"{command.kw} kW", field="kw", rule="an order is above 0 kW")
        if span.start < need.window.start or span.end > need.window.end:
            raise RejectedError(
                f"{span.start} .. {span.end} leaves the service window",
                field="interval", rule="an order lies within its need's service window",
                remedy=f"stay within {need.window.start} .. {need.window.end}",
            )  # fmt: skip
        if not (self._grid.is_aligned(span.start) and self._grid.is_aligned(span.end)):
            raise RejectedError(
                f"{span.start} .. {span.end} is off the settlement grid", field="interval",
                rule=f"orders start and end on {self._grid.minutes} minute periods",
            )  # fmt: skip
        if span.start < self._clock.now():
            raise RejectedError(
                f"{span.start} is in the past", field="interval",
                rule="an order starts in the future", remedy="start at the next period",
            )  # fmt: skip
