"""Setpoints and where each one stands."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from gateway.store.among import among
from gateway.store.engine import from_us, to_us
from gateway.store.market import to_json
from gateway.store.tables import setpoints
from marketplace_core.dispatch.setpoint import (
    Applied,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
)


class SetpointState(enum.Enum):
    """Life of a setpoint in the gateway."""

    PLANNED = "planned"
    """Decided, nothing sent."""
    ISSUED = "issued"
    """Journalled as about to be sent: from here on it may have reached the device."""
    APPLIED = "applied"
    """In force; its lease is refreshed."""
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    UNCONFIRMED = "unconfirmed"
    RELEASED = "released"
    """Its time is over and the device was returned to its fallback."""
    SUPERSEDED = "superseded"
    """A later revision of its order told the device something else."""


OPEN = (SetpointState.PLANNED, SetpointState.ISSUED, SetpointState.APPLIED)
"""States in which something is still to be done."""


class SetpointRow(msgspec.Struct, frozen=True, kw_only=True):
    """A setpoint, its state and its last outcome."""

    setpoint: Setpoint
    state: SetpointState
    outcome: SetpointOutcome | None


def add_setpoints(connection: Connection, planned: Sequence[Setpoint]) -> None:
    """Keep planned setpoints."""
    rows = [
        {
            "id": setpoint.id,
            "order_id": setpoint.order_id,
            "device_id": setpoint.device_id,
            "state": SetpointState.PLANNED.value,
            "valid_from_us": to_us(setpoint.valid_from),
            "valid_until_us": to_us(setpoint.valid_until),
            "document": to_json(setpoint),
        }
        for setpoint in planned
    ]
    if rows:
        connection.execute(insert(setpoints), rows)


def set_states(connection: Connection, ids: Collection[str], state: SetpointState) -> None:
    """Move setpoints to a state."""
    if ids:
        chosen = among(connection, setpoints.c.id, ids)
        connection.execute(update(setpoints).where(chosen).values(state=state.value))


def record_outcomes(connection: Connection, outcomes: Sequence[SetpointOutcome]) -> None:
    """Keep the outcome of setpoints and the state it means."""
    rows = [
        {"key": each.setpoint_id, "told": state_of(each).value, "answer": to_json(each)}
        for each in outcomes
    ]
    if rows:
        statement = update(setpoints).where(setpoints.c.id == bindparam("key"))
        connection.execute(
            statement.values(state=bindparam("told"), outcome=bindparam("answer")), rows
        )


def state_of(outcome: SetpointOutcome) -> SetpointState:
    """The state that an outcome puts a setpoint into."""
    match outcome:
        case Applied():
            return SetpointState.APPLIED
        case Refused():
            return SetpointState.REFUSED
        case Unreachable():
            return SetpointState.UNREACHABLE
        case Unconfirmed():
            return SetpointState.UNCONFIRMED


def end_setpoints(
    connection: Connection, at: datetime, *, order_id: str = "", ids: Collection[str] = ()
) -> None:
    """Let setpoints of an order, or some by id, end at `at`.

    What is over is never issued or refreshed again, also after a restart; what may have
    reached a device is released then.
    """
    chosen = setpoints.c.order_id == order_id
    if not order_id:
        chosen = among(connection, setpoints.c.id, ids)
    query = select(setpoints).where(chosen, setpoints.c.valid_until_us > to_us(at))
    rows = [
        {
            "key": row.id,
            "ended": to_json(msgspec.structs.replace(setpoint_row(row).setpoint, valid_until=at)),
        }
        for row in connection.execute(query)
    ]
    if rows:
        statement = update(setpoints).where(setpoints.c.id == bindparam("key"))
        connection.execute(
            statement.values(valid_until_us=to_us(at), document=bindparam("ended")), rows
        )


def setpoints_in(connection: Connection, states: Collection[SetpointState]) -> list[SetpointRow]:
    """Setpoints in some states, in the order they become valid."""
    query = (
        select(setpoints)
        .where(setpoints.c.state.in_([state.value for state in states]))
        .order_by(setpoints.c.valid_from_us, setpoints.c.id)
    )
    return [setpoint_row(row) for row in connection.execute(query)]


def in_force(connection: Connection, at: datetime) -> list[SetpointRow]:
    """Setpoints that were sent and whose time it is."""
    sent = (SetpointState.ISSUED, SetpointState.APPLIED, SetpointState.UNCONFIRMED)
    query = select(setpoints).where(
        setpoints.c.state.in_([state.value for state in sent]),
        setpoints.c.valid_from_us <= to_us(at), setpoints.c.valid_until_us > to_us(at),
    )  # fmt: skip
    rows = connection.execute(query.order_by(setpoints.c.valid_from_us, setpoints.c.id))
    return [setpoint_row(row) for row in rows]


def ends_in_force(connection: Connection, at: datetime) -> dict[str, datetime]:
    """When what each device holds now is over, by device."""
    query = select(setpoints.c.device_id, func.max(setpoints.c.valid_until_us)).where(
        setpoints.c.state == SetpointState.APPLIED.value,
        setpoints.c.valid_from_us <= to_us(at), setpoints.c.valid_until_us > to_us(at),
    )  # fmt: skip
    rows = connection.execute(query.group_by(setpoints.c.device_id))
    return {device: from_us(until_us) for device, until_us in rows}


def setpoints_of(connection: Connection, order_id: str) -> list[SetpointRow]:
    """Every setpoint of an order, by device."""
    query = select(setpoints).where(setpoints.c.order_id == order_id)
    rows = connection.execute(query.order_by(setpoints.c.device_id, setpoints.c.id))
    return [setpoint_row(row) for row in rows]


def newest_setpoints(connection: Connection, order_id: str) -> dict[str, Setpoint]:
    """What each device was last to be told for an order: its setpoint of the highest revision."""
    newest: dict[str, Setpoint] = {}
    for row in setpoints_of(connection, order_id):
        known = newest.get(row.setpoint.device_id)
        if known is None or row.setpoint.revision > known.revision:
            newest[row.setpoint.device_id] = row.setpoint
    return newest


def served_seconds(connection: Connection, since: datetime, *, apart_from: str) -> dict[str, float]:
    """Market seconds that each device was driven for in orders that ended after `since`.

    One order (`apart_from`) is left out: a plan is not to change because it is in force.
    """
    sent = (SetpointState.APPLIED, SetpointState.RELEASED, SetpointState.SUPERSEDED)
    begins, ends = func.min(setpoints.c.valid_from_us), func.max(setpoints.c.valid_until_us)
    spans = (
        select(setpoints.c.device_id, (ends - begins).label("us"))
        .where(
            setpoints.c.state.in_([state.value for state in sent]),
            setpoints.c.valid_until_us > to_us(since), setpoints.c.order_id != apart_from,
        )
        .group_by(setpoints.c.device_id, setpoints.c.order_id)
        .subquery()
    )  # fmt: skip
    query = select(spans.c.device_id, func.sum(spans.c.us)).group_by(spans.c.device_id)
    return {device_id: float(us) / 1e6 for device_id, us in connection.execute(query)}


def setpoint_row(row: Row[Any]) -> SetpointRow:
    """A row of the table as what it stands for."""
    outcome = row.outcome
    return SetpointRow(
        setpoint=msgspec.json.decode(row.document, type=Setpoint),
        state=SetpointState(row.state),
        outcome=None if outcome is None else msgspec.json.decode(outcome, type=SetpointOutcome),
    )
