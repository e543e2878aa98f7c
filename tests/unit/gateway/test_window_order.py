"""Windows are handed out in one order, whatever order the database keeps its rows in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, update

from gateway.store.delivery import expect, windows_ending_after, windows_open
from gateway.store.tables import windows
from marketplace_core.intervals import Interval

START = datetime(2026, 7, 20, 22, 0, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
KEYS = [("ord_1", "ctr_1"), ("ord_1", "ctr_2"), ("ord_2", "ctr_1")]


def test_windows_that_end_together_come_by_order_and_contract(engine: Engine) -> None:
    periods = [Interval(START + n * QUARTER, START + (n + 1) * QUARTER) for n in range(2)]
    with engine.begin() as connection:
        for order_id, contract_id in reversed(KEYS):
            expect(connection, order_id, contract_id, reversed(periods))
        wanted = [(period, *key) for period in periods for key in KEYS]
        found = windows_open(connection)
        assert [(row.period, row.order_id, row.contract_id) for row in found] == wanted
        connection.execute(update(windows).values(state="closed"))
        found = windows_ending_after(connection, START)
        assert [(row.period, row.order_id, row.contract_id) for row in found] == wanted
