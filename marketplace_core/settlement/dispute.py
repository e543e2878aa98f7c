"""A dispute over a statement line: opened by a side, decided by a person."""

from __future__ import annotations

import enum
from datetime import datetime

import msgspec

from marketplace_core.errors import RejectedError
from marketplace_core.settlement.statement import StatementLine


class DisputeState(enum.Enum):
    """Where a dispute stands."""

    OPEN = "open"
    ACCEPTED = "accepted"
    """The line is wrong; what follows is booked as a correction."""
    REJECTED = "rejected"
    """The line stands."""


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """One side's objection to one line."""

    id: str
    line_id: str
    order_id: str
    buyer: str
    seller: str
    opened_by: str
    """Organisation: the buyer or the seller of the line."""
    opened_at: datetime
    reason: str
    state: DisputeState = DisputeState.OPEN
    resolution: str = ""
    """Why it was decided so."""
    resolved_at: datetime | None = None


def open_dispute(
    line: StatementLine,
    buyer: str,
    *,
    dispute_id: str,
    by: str,
    at: datetime,
    reason: str,
    newest_version: int,
) -> Dispute:
    """Object to a line. Raises RejectedError when the line was superseded."""
    if line.version < newest_version:
        raise RejectedError(
            f"line {line.id} is version {line.version}, version {newest_version} stands",
            field="line_id", rule="a dispute is about the version that stands",
            remedy="object to the line that superseded it",
        )  # fmt: skip
    return Dispute(
        id=dispute_id, line_id=line.id, order_id=line.order_id, buyer=buyer, seller=line.seller,
        opened_by=by, opened_at=at, reason=reason,
    )  # fmt: skip


def resolve_dispute(dispute: Dispute, *, accept: bool, resolution: str, at: datetime) -> Dispute:
    """Decide a dispute. Raises RejectedError when it is decided already."""
    if dispute.state is not DisputeState.OPEN:
        raise RejectedError(
            f"dispute {dispute.id} is {dispute.state.value}", field="dispute_id",
            rule="a dispute is decided once",
        )  # fmt: skip
    state = DisputeState.ACCEPTED if accept else DisputeState.REJECTED
    return msgspec.structs.replace(dispute, state=state, resolution=resolution, resolved_at=at)
