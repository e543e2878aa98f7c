"""What was found wrong with devices."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, insert, select

from gateway.store.engine import to_us
from gateway.store.market import to_json
from gateway.store.paging import Page, Slice, rows_of
from gateway.store.tables import asset_devices, flags
from gateway.store.viewer import Viewer
from marketplace_core.verification.flags import Flag


def add_flag(connection: Connection, flag: Flag, *, shard: int, sequence: int) -> None:
    """Keep a finding; `shard` and `sequence` say where the journal has it."""
    row = {
        "shard": shard, "sequence": sequence, "device_id": flag.device_id,
        "kind": flag.kind.value, "order_id": flag.order_id, "at_us": to_us(flag.at),
        "document": to_json(flag),
    }  # fmt: skip
    connection.execute(insert(flags).values(row))


def flags_page(
    connection: Connection, viewer: Viewer, page: Page, order_id: str | None = None
) -> Slice[Flag]:
    """Findings about the viewer's devices, by time; with `order_id`, those of one order."""
    query = select(flags)
    if order_id is not None:
        query = query.where(flags.c.order_id == order_id)
    if not viewer.everything:
        own = select(asset_devices.c.device_id).where(viewer.of(asset_devices.c.organisation))
        query = query.where(flags.c.device_id.in_(own))
    found = rows_of(connection, query, page, flags.c.at_us, flags.c.shard, flags.c.sequence)
    return Slice(
        [msgspec.json.decode(row.document, type=Flag) for row in found.items], found.following
    )


def flags_since(connection: Connection, at: datetime) -> list[Flag]:
    """Findings from an instant on, oldest first."""
    query = select(flags.c.document).where(flags.c.at_us >= to_us(at)).order_by(flags.c.at_us)
    rows = connection.execute(query)
    return [msgspec.json.decode(row.document, type=Flag) for row in rows]
