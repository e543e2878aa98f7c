"""What was found wrong with devices."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, insert, select

from gateway.store.engine import to_us
from gateway.store.market import to_json
from gateway.store.tables import flags
from marketplace_core.verification.flags import Flag


def add_flag(connection: Connection, flag: Flag, *, shard: int, sequence: int) -> None:
    """Keep a finding; `shard` and `sequence` say where the journal has it."""
    row = {
        "shard": shard, "sequence": sequence, "device_id": flag.device_id,
        "kind": flag.kind.value, "order_id": flag.order_id, "at_us": to_us(flag.at),
        "document": to_json(flag),
    }  # fmt: skip
    connection.execute(insert(flags).values(row))


def newest_flags(
    connection: Connection, *, order_id: str | None = None, limit: int = 1_000
) -> list[Flag]:
    """Findings, newest first; with `order_id`, those of one order."""
    query = select(flags.c.document).order_by(flags.c.at_us.desc(), flags.c.sequence.desc())
    if order_id is not None:
        query = query.where(flags.c.order_id == order_id)
    rows = connection.execute(query.limit(limit))
    return [msgspec.json.decode(row.document, type=Flag) for row in rows]
