"""Organisations: who takes part, and who is shut out."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import datetime

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from gateway.store.engine import from_us, to_us
from gateway.store.paging import Page, Slice, rows_of
from gateway.store.tables import organisations
from gateway.store.viewer import Viewer
from marketplace_core.errors import NotFoundError


class OrganisationState(enum.Enum):
    """Whether an organisation may use the market."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class Organisation(msgspec.Struct, frozen=True, kw_only=True):
    """A participant of the market."""

    id: str
    name: str
    state: OrganisationState
    reason: str = ""
    """Why it is suspended."""
    since: datetime
    """Since when it is in this state."""


def organisation(connection: Connection, viewer: Viewer, organisation_id: str) -> Organisation:
    """One organisation; NotFoundError when there is none or it is another than the viewer's."""
    query = select(organisations).where(
        organisations.c.id == organisation_id, viewer.of(organisations.c.id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError("organisation", organisation_id)
    return _organisation(row)


def organisations_page(connection: Connection, viewer: Viewer, page: Page) -> Slice[Organisation]:
    """Organisations by id: an operator sees all, anybody else its own."""
    query = select(organisations).where(viewer.of(organisations.c.id))
    found = rows_of(connection, query, page, organisations.c.id)
    return Slice([_organisation(row) for row in found.items], found.following)


def is_suspended(connection: Connection, organisation_id: str) -> bool:
    """Whether an organisation is shut out; one that is not listed is not."""
    query = select(organisations.c.state).where(organisations.c.id == organisation_id)
    return connection.scalar(query) == OrganisationState.SUSPENDED.value


def add_organisation(connection: Connection, organisation_id: str, name: str, at: datetime) -> bool:
    """Enter an organisation; False when it is there already."""
    known = select(organisations.c.id).where(organisations.c.id == organisation_id)
    if connection.scalar(known) is not None:
        return False
    row = {
        "id": organisation_id, "name": name, "state": OrganisationState.ACTIVE.value, "reason": "",
        "since_us": to_us(at),
    }  # fmt: skip
    connection.execute(insert(organisations).values(row))
    return True


def add_configured(connection: Connection, names: Iterable[str], at: datetime) -> None:
    """Enter the organisations that the configuration names; what is known stays as it is."""
    for name in sorted(set(names)):
        add_organisation(connection, name, name, at)


def set_organisation_state(
    connection: Connection,
    organisation_id: str,
    state: OrganisationState,
    reason: str,
    at: datetime,
) -> bool:
    """Suspend or reinstate; False when it is in that state already. Raises NotFoundError."""
    query = select(organisations.c.state).where(organisations.c.id == organisation_id)
    before = connection.scalar(query)
    if before is None:
        raise NotFoundError("organisation", organisation_id)
    if before == state.value:
        return False
    values = {"state": state.value, "reason": reason, "since_us": to_us(at)}
    connection.execute(
        update(organisations).where(organisations.c.id == organisation_id).values(values)
    )
    return True


def _organisation(row: Row[tuple[object, ...]]) -> Organisation:
    return Organisation(
        id=row.id, name=row.name, state=OrganisationState(row.state), reason=row.reason,
        since=from_us(row.since_us),
    )  # fmt: skip
