"""Disputes over statement lines."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, insert, select, update

from gateway.store.market import to_json
from gateway.store.paging import Page, Slice, rows_of
from gateway.store.tables import disputes
from gateway.store.viewer import Viewer
from marketplace_core.errors import NotFoundError
from marketplace_core.settlement.dispute import Dispute, DisputeState

_SIDES = (disputes.c.buyer, disputes.c.seller)


def add_dispute(connection: Connection, dispute: Dispute) -> None:
    """Keep an opened dispute."""
    row = {
        "id": dispute.id, "line_id": dispute.line_id, "buyer": dispute.buyer,
        "seller": dispute.seller, "state": dispute.state.value, "document": to_json(dispute),
    }  # fmt: skip
    connection.execute(insert(disputes).values(row))


def save_dispute(connection: Connection, dispute: Dispute) -> None:
    """Replace the stored form of a dispute."""
    values = {"state": dispute.state.value, "document": to_json(dispute)}
    connection.execute(update(disputes).where(disputes.c.id == dispute.id).values(values))


def dispute(connection: Connection, viewer: Viewer, dispute_id: str) -> Dispute:
    """One dispute of a line that the viewer is a side of; NotFoundError else."""
    query = select(disputes.c.document).where(disputes.c.id == dispute_id, viewer.of(*_SIDES))
    text = connection.scalar(query)
    if text is None:
        raise NotFoundError("dispute", dispute_id)
    return msgspec.json.decode(text, type=Dispute)


def disputes_page(
    connection: Connection, viewer: Viewer, page: Page, state: DisputeState | None = None
) -> Slice[Dispute]:
    """Disputes that the viewer is a side of, by id."""
    query = select(disputes.c.id, disputes.c.document).where(viewer.of(*_SIDES))
    if state is not None:
        query = query.where(disputes.c.state == state.value)
    found = rows_of(connection, query, page, disputes.c.id)
    decoded = [msgspec.json.decode(row.document, type=Dispute) for row in found.items]
    return Slice(decoded, found.following)


def open_dispute_of(connection: Connection, line_id: str) -> str | None:
    """Id of the dispute that is open about a line, if one is."""
    query = select(disputes.c.id).where(
        disputes.c.line_id == line_id, disputes.c.state == DisputeState.OPEN.value
    )
    return connection.scalar(query)
