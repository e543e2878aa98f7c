"""The carrier: every fact is handled once, whatever the bus brings."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from gateway.bus.local import LocalBus, Subscription
from gateway.observability.metrics import Metrics
from gateway.store.engine import open_engine
from gateway.store.journal import Journal
from gateway.store.tables import cursors, dead_letters, metadata
from gateway.store.writer import Transaction, Writer
from gateway.street import Carrier
from marketplace_core.events import OrderRejected
from marketplace_core.ports import Record
from tests.harness.clocks import SteppingClock, eventually


class Noting:
    """A stage that notes what it handled, and chokes on some."""

    name = "award"
    consumes: Collection[type[Any]] = frozenset({OrderRejected})
    emits: Collection[type[Any]] = frozenset()

    def __init__(self, poison: str = "") -> None:
        self.committed: list[Record] = []
        self._poison = poison

    def handle(self, record: Record, transaction: Transaction) -> None:
        if isinstance(record.fact, OrderRejected) and record.fact.reason == self._poison:
            raise ValueError("poison \0")
        transaction.after_commit.append(lambda: self.committed.append(record))


class Holding(LocalBus):
    """Keeps what is published back, for the test to deliver as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Record] = []
        self.subscriptions: list[Subscription] = []

    def publish(self, records: list[Record]) -> None:
        self.held += records

    def deliver(self, records: list[Record]) -> None:
        super().publish(records)

    def subscribe(self, group: str) -> Subscription:
        assert group == "award"
        self.subscriptions.append(super().subscribe(group))
        return self.subscriptions[-1]


@pytest.fixture
def bus() -> Holding:
    return Holding()


async def fill(writer: Writer, count: int) -> None:
    for number in range(count):
        fact = OrderRejected(order_id=f"ord_{number % 3}", reason=str(number))
        await writer.transact(lambda tx, fact=fact: tx.append(fact.order_id, fact))


def carrier(
    stage: Noting, engine: Engine, writer: Writer, bus: LocalBus, *, inline: bool = False
) -> Carrier:
    return Carrier(stage, engine=engine, writer=writer, bus=bus, metrics=Metrics(), inline=inline)


async def test_a_record_that_stands_twice_in_one_batch_is_handled_once(
    engine: Engine, start_writer: Callable[[], Writer], bus: Holding
) -> None:
    writer, stage = start_writer(), Noting()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(carrier(stage, engine, writer, bus).run())
        await asyncio.sleep(0.05)
        await fill(writer, 3)
        bus.deliver([r for record in bus.held for r in (record, record)] + bus.held)
        await eventually(lambda: len(stage.committed) >= 3, what="the records")
        await fill(writer, 1)
        bus.deliver(bus.held)
        await eventually(lambda: bus.held[-1] in stage.committed, what="the last record")
        running.cancel()
    assert stage.committed == bus.held


_ANY = st.lists(st.integers(min_value=0, max_value=11), max_size=8)
_RUNS = st.builds(
    lambda first, length, times: [n for n in range(first, 12)[:length] for _ in range(times)],
    st.integers(min_value=0, max_value=4), st.integers(min_value=1, max_value=8),
    st.integers(min_value=1, max_value=3),
)  # fmt: skip
"""Stretches of the journal, each record once or more."""


@settings(deadline=None, max_examples=25)
@given(
    batches=st.lists(_RUNS | _ANY, max_size=6),
    lag_at=st.integers(min_value=0, max_value=6),
)
def test_whatever_the_bus_brings_each_fact_is_handled_once_and_in_order(
    batches: list[list[int]], lag_at: int
) -> None:
    """Records lost, doubled, reordered; the subscriber told to read the journal or not."""

    async def scenario(engine: Engine) -> None:
        bus, stage = Holding(), Noting()
        writer = Writer(engine, Journal(SteppingClock(), 2), bus.publish, inline=True)
        writer.start()
        under_test = carrier(stage, engine, writer, bus, inline=True)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(under_test.run())
            await asyncio.sleep(0.01)  # it has seen an empty journal: now all comes by the bus
            await fill(writer, 12)
            for number, batch in enumerate(batches):
                bus.deliver([bus.held[i] for i in batch])
                if number == lag_at:
                    bus.subscriptions[0].lag()
                for _ in range(4):
                    await asyncio.sleep(0)  # the carrier's turn
            bus.deliver(bus.held)
            await eventually(lambda: len(stage.committed) >= 12, what="all records")
            await asyncio.sleep(0.01)
            running.cancel()
        writer.stop()
        by_shard = {s: [r for r in stage.committed if r.shard == s] for s in (0, 1)}
        assert by_shard == {s: [r for r in bus.held if r.shard == s] for s in (0, 1)}

    with tempfile.TemporaryDirectory() as name:
        engine = open_engine(f"sqlite:///{name}/market.db")
        metadata.create_all(engine)
        try:
            asyncio.run(scenario(engine))
        finally:
            engine.dispose()


async def test_a_poisonous_record_is_put_aside_and_the_rest_goes_on(
    engine: Engine, start_writer: Callable[[], Writer], bus: Holding
) -> None:
    writer, stage = start_writer(), Noting(poison="1")
    async with asyncio.TaskGroup() as tasks:
        await fill(writer, 4)
        running = tasks.create_task(carrier(stage, engine, writer, bus).run())
        await eventually(lambda: len(stage.committed) == 3, what="the others")
        running.cancel()
    with engine.connect() as connection:
        letters = connection.execute(select(dead_letters)).all()
        heads = {row.shard: row.sequence for row in connection.execute(select(cursors))}
    assert [(row.stage, row.error) for row in letters] == [("award", "ValueError: poison \\0")]
    assert sum(heads.values()) == 4
