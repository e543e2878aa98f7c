"""Plans in force of orders that run beside one."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, and_, or_, select

from gateway.store.engine import to_us
from gateway.store.journal import read_streams
from gateway.store.tables import orders
from marketplace_core.dispatch.lifecycle import RUNNING
from marketplace_core.dispatch.others import Others, others_of
from marketplace_core.events import OrderPlanned
from marketplace_core.intervals import Interval


def others_beside(connection: Connection, order_id: str, span: Interval, now: datetime) -> Others:
    """What other orders that run now, or meanwhile, have of the devices."""
    start, end, at = to_us(span.start), to_us(span.end), to_us(now)
    query = select(orders.c.id).where(
        orders.c.id != order_id,
        orders.c.state.in_([state.value for state in RUNNING]),
        or_(
            and_(orders.c.start_us < end, orders.c.end_us > start),
            and_(orders.c.start_us <= at, orders.c.end_us > at),
        ),
    )
    ids = list(connection.scalars(query))
    if not ids:
        return others_of((), span, now)
    facts = (record.fact for record in read_streams(connection, ids))
    newest = {fact.order_id: fact for fact in facts if isinstance(fact, OrderPlanned)}
    return others_of((newest[each] for each in sorted(newest)), span, now)
