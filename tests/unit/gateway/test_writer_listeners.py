"""Who listens to commits may fail: those who committed are answered all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Engine

from gateway.store.journal import Journal
from gateway.store.writer import Writer
from marketplace_core.events import OrderRejected
from marketplace_core.ports import Clock, Record


async def test_a_listener_that_fails_leaves_nobody_waiting(engine: Engine, clock: Clock) -> None:
    def fail(_: list[Record]) -> None:
        raise ValueError("of no concern to those who committed")

    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    writer = Writer(engine, Journal(clock, shards=2), fail)
    writer.start()
    fact = OrderRejected(order_id="ord_1", reason="x")
    try:
        work = writer.transact(lambda tx: tx.append("ord_1", fact))
        record = await asyncio.wait_for(work, 10)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(writer.transact(lambda _: 1 / 0), 10)
    finally:
        writer.stop()
    assert record.fact == fact
    assert isinstance(said[0]["exception"], ValueError), "the failure is shown"
