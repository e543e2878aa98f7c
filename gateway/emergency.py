"""Emergency stop: whom it concerns, told and written down side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, Protocol

import msgspec
from sqlalchemy import Connection

from gateway.store.market import running_orders
from gateway.store.registry import owners_of
from gateway.store.scopes import feeder_is_known, organisation_is_known
from gateway.store.setpoints import SetpointState, end_setpoints, set_states
from gateway.store.viewer import Viewer
from gateway.store.writer import Transaction, Writer
from marketplace_core.dispatch.order import Order
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.dispatch.stop import StopMeaning, StopOutcome
from marketplace_core.errors import RequestError, StoreError
from marketplace_core.events import EmergencyAnswered, EmergencyStopped
from marketplace_core.ports import Clock

ScopeKind = Literal["feeder", "organisation", "all"]


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Which devices are meant: those that hold a setpoint, or are about to get one."""

    kind: ScopeKind
    id: str = ""
    """Feeder or organisation."""

    def __str__(self) -> str:
        """For the journal."""
        return f"{self.kind} {self.id}".strip()


class EmergencyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an emergency stop did."""

    emergency_id: str
    scope: str
    outcomes: tuple[StopOutcome, ...]
    orders: tuple[str, ...]
    """Orders that ended with it."""
    latency_s: float
    """Wall seconds from the request until the last device answered or was given up."""


class EmergencyLane(Protocol):
    """Stops devices past every queue."""

    def open_setpoints(self) -> list[Setpoint]:
        """What is in force, on its way or planned."""

    async def stop(
        self,
        emergency_id: str,
        setpoint_ids: Collection[str],
        meanings: Mapping[str, StopMeaning],
        *,
        since: float,
    ) -> list[StopOutcome]:
        """End setpoints at their devices; `since` is when the clock of their latency began."""


class Emergency:
    """Stops what a scope names, as far as it is the caller's to stop."""

    def __init__(
        self,
        lane: EmergencyLane,
        *,
        writer: Writer,
        clock: Clock,
        new_id: Callable[[str], str],
        halt: Callable[[Transaction, str, str, str], None],
    ) -> None:
        """`halt(transaction, order id, organisation, reason)` ends an order if it still runs."""
        self._lane = lane
        self._writer = writer
        self._clock = clock
        self._new_id = new_id
        self._halt = halt

    def open_setpoints(self) -> list[Setpoint]:
        """What is in force, on its way or planned; to be asked on the event loop."""
        return self._lane.open_setpoints()

    def concerned(
        self, connection: Connection, viewer: Viewer, scope: Scope, setpoints: Sequence[Setpoint]
    ) -> tuple[list[Setpoint], list[Order]]:
        """Of open setpoints and running orders those in scope that are the viewer's to stop.

        A seller can stop its devices, never an order: what it then does not deliver it owes.
        RequestError when nobody knows the scope: an emergency stop of a misspelt feeder must
        not look as if it had worked.
        """
        running = {o.id: o for o in running_orders(connection, self._clock.now())}
        owners = owners_of(connection, {each.device_id for each in setpoints})
        chosen = [
            each for each in setpoints
            if _meant(scope, viewer, running.get(each.order_id), owners.get(each.device_id, ""))
        ]  # fmt: skip
        ids = {each.id for each in chosen}
        left = {each.order_id for each in setpoints if each.id not in ids}
        served = {each.order_id for each in chosen}
        orders = [
            order for order in running.values()
            if viewer.owns(order.buyer) and order.id not in left
            and (order.id in served or _meant(scope, viewer, order, ""))
        ]  # fmt: skip
        if not chosen and not orders:
            _require_known(connection, scope)
        return chosen, orders

    async def stop(
        self,
        setpoints: Sequence[Setpoint],
        orders: Sequence[Order],
        *,
        scope: Scope,
        by: str,
        reason: str,
        meanings: Mapping[str, StopMeaning],
        default: StopMeaning,
        since: float,
        kept: Callable[[Transaction, EmergencyReport], None],
    ) -> EmergencyReport:
        """Tell the devices and write it down at once; return when both are done.

        `kept` runs in the transaction that keeps the outcomes. StoreError when nothing
        could be written: the devices were told all the same.
        """
        emergency_id = self._new_id("emg")
        asked = {
            device: meanings.get(device, default)
            for device in sorted({each.device_id for each in setpoints})
        }
        fact = EmergencyStopped(
            emergency_id=emergency_id, by=by, scope=str(scope), reason=reason,
            at=self._clock.now(), orders=tuple(order.id for order in orders),
            devices=tuple((device, meaning.value) for device, meaning in asked.items()),
        )  # fmt: skip
        ids = [each.id for each in setpoints]
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(self._lane.stop(emergency_id, ids, asked, since=since))
            writing = tasks.create_task(self._written(lambda tx: self._record(tx, fact, ids)))
        failure = writing.result()
        if failure is not None:
            raise failure
        report = EmergencyReport(
            emergency_id=emergency_id, scope=str(scope), outcomes=tuple(telling.result()),
            orders=fact.orders, latency_s=self._clock.monotonic() - since,
        )  # fmt: skip
        done = {each.device_id for each in report.outcomes if each.outcome == "applied"}
        released = [each.id for each in setpoints if each.device_id in done]

        def answered(transaction: Transaction) -> None:
            set_states(transaction.connection, released, SetpointState.RELEASED)
            transaction.append(
                emergency_id,
                EmergencyAnswered(
                    emergency_id=emergency_id, outcomes=report.outcomes, latency_s=report.latency_s
                ),
            )
            kept(transaction, report)

        await self._writer.transact(answered)
        return report

    def _record(self, transaction: Transaction, fact: EmergencyStopped, ids: list[str]) -> None:
        end_setpoints(transaction.connection, fact.at, ids=ids)
        for order_id in fact.orders:
            self._halt(transaction, order_id, fact.by, f"emergency stop: {fact.reason}")
        transaction.append(fact.emergency_id, fact)

    async def _written(self, work: Callable[[Transaction], None]) -> StoreError | None:
        """Devices are told whether or not the disk takes it: a failure must not cancel that."""
        try:
            await self._writer.transact(work)
        except StoreError as error:
            return error
        return None


def _require_known(connection: Connection, scope: Scope) -> None:
    known = (
        scope.kind == "all"
        or (scope.kind == "feeder" and feeder_is_known(connection, scope.id))
        or (scope.kind == "organisation" and organisation_is_known(connection, scope.id))
    )
    if not known:
        raise RequestError(
            f"no {scope.kind} {scope.id!r} is known here: nothing was stopped", field="scope.id",
            rule="an emergency stop names what exists",
            remedy='check the spelling, or stop everything that is yours: {"kind": "all"}',
        )  # fmt: skip


def _meant(scope: Scope, viewer: Viewer, order: Order | None, owner: str) -> bool:
    """Whether a setpoint (or an order, with no owner) is in scope and the viewer's to stop."""
    buyer = "" if order is None else order.buyer
    if not (viewer.everything or viewer.organisation in {buyer, owner} - {""}):
        return False
    match scope.kind:
        case "all":
            return True
        case "feeder":
            return order is not None and order.feeder == scope.id
        case "organisation":
            return scope.id in {buyer, owner}
