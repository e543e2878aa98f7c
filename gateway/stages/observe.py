"""Observe: readings become closed settlement windows, each with its evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

import msgspec
from sqlalchemy import Connection, Engine

from gateway.store.delivery import (
    WindowRow,
    close_window,
    end_instructions,
    expect,
    instruct,
    windows_ending_after,
    windows_of,
    windows_open,
)
from gateway.store.engine import run_read
from gateway.store.facts import record_fact
from gateway.store.market import contract_by_id, order_by_id
from gateway.store.readings import Readings
from gateway.store.registry import meters_of_assets
from gateway.store.writer import Transaction, Writer
from marketplace_core.events import OrderFact, OrderPlanned, OrderStopped, WindowClosed
from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.ports import Clock, Record
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading
from marketplace_core.verification.windows import measure

CONSUMES: frozenset[type[OrderFact]] = frozenset({OrderPlanned, OrderStopped})
EMITS: frozenset[type[OrderFact]] = frozenset({WindowClosed})


class Watched(msgspec.Struct, frozen=True):
    """A window and the series it is measured by."""

    row: WindowRow
    series: tuple[str, ...]


class Observe:
    """Waits for a window's readings, closes it, and closes it again when late ones come."""

    name = "observe"
    consumes = CONSUMES
    emits = EMITS

    def __init__(
        self,
        *,
        engine: Engine,
        writer: Writer,
        readings: Readings,
        clock: Clock,
        grid: SettlementGrid,
        grace: timedelta,
        late_for: timedelta,
        rebound: timedelta,
        idle_s: float = 1.0,
    ) -> None:
        """`grace`: how long after its end a window waits; `late_for`: how long it may change.

        `rebound`: how long after an order its contracts are watched on, instructed nothing.
        `idle_s`: longest wall time between two looks at what is due.
        """
        self._idle_s = idle_s
        self._engine = engine
        self._writer = writer
        self._readings = readings
        self._clock = clock
        self._grid = grid
        self._grace = grace
        self._late_for = late_for
        self._rebound = rebound
        self._open: dict[tuple[str, str, datetime], Watched] = {}
        self._closed: dict[tuple[str, str, datetime], Watched] = {}
        self._closing: dict[tuple[str, str, datetime], Watched] = {}
        self._late: set[tuple[str, str, datetime]] = set()
        self._wake = asyncio.Event()

    def handle(self, record: Record, transaction: Transaction) -> None:
        """Expect readings for every settlement period of every call of a planned order."""
        fact = record.fact
        if isinstance(fact, OrderStopped):
            end_instructions(transaction.connection, fact.order_id, fact.at)
            transaction.after_commit.append(partial(self._reload, fact.order_id))
            return
        if not isinstance(fact, OrderPlanned):
            return
        connection = transaction.connection
        row = order_by_id(connection, fact.order_id)
        until = row.order.interval.end
        after = Interval(until, until + self._rebound) if self._rebound else None
        for call in row.calls:
            periods = list(self._grid.periods(fact.interval))
            instruct(
                connection, fact.order_id, call.contract_id, periods,
                kw=call.kw, span=fact.interval,
            )  # fmt: skip
            if after is not None:
                expect(connection, fact.order_id, call.contract_id, self._grid.periods(after))
        transaction.after_commit.append(partial(self._reload, fact.order_id))

    def stored(self, readings: Sequence[Reading]) -> None:
        """Hear of new readings: those that touch a closed window reopen the question."""
        # A window that is being closed was measured already: what comes now is late for it.
        for key, watched in (*self._closing.items(), *self._closed.items()):
            for reading in readings:
                period = watched.row.period
                meets = reading.start < period.end and reading.end > period.start
                if meets and reading.series in watched.series:
                    self._late.add(key)
        if self._late:
            self._wake.set()

    async def run(self) -> None:
        """Close windows until cancelled."""
        self._restore()
        while True:
            self._wake.clear()
            now = self._clock.now()
            for key, watched in list(self._open.items()):
                if watched.row.period.end + self._grace <= now:
                    await self._close(key, watched, version=1)
            for key in list(self._late):
                self._late.discard(key)
                await self._close_again(key)
            self._forget(now)
            await self._sleep(now)

    async def _sleep(self, now: datetime) -> None:
        ends = [watched.row.period.end for watched in self._open.values()]
        nap = self._idle_s
        if ends:
            left = (min(ends) + self._grace - now).total_seconds()
            nap = min(nap, max(0.0, self._clock.wall_seconds(left)))
        try:
            async with asyncio.timeout(nap + 0.005):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _close(
        self, key: tuple[str, str, datetime], watched: Watched, *, version: int
    ) -> None:
        self._closing[key] = watched
        fact = await asyncio.to_thread(self._measure, watched, version)

        def work(transaction: Transaction) -> None:
            close_window(transaction.connection, fact)
            record_fact(transaction, fact)

        await self._writer.transact(work, emits=EMITS)
        row = msgspec.structs.replace(watched.row, version=version, closed=fact)
        self._open.pop(key, None)
        self._closing.pop(key, None)
        self._closed[key] = msgspec.structs.replace(watched, row=row)

    async def _close_again(self, key: tuple[str, str, datetime]) -> None:
        watched = self._closed[key]
        fact = await asyncio.to_thread(self._measure, watched, watched.row.version + 1)
        before = watched.row.closed
        if before is None or (before.measured_kw, before.coverage) == (
            fact.measured_kw,
            fact.coverage,
        ):
            return
        await self._close(key, watched, version=fact.version)

    def _measure(self, watched: Watched, version: int) -> WindowClosed:
        period = watched.row.period
        parts = [self._readings.between(s, period.start, period.end) for s in watched.series]
        measured = measure([(p.start_s, p.seconds, p.power_kw) for p in parts], period)
        return WindowClosed(
            order_id=watched.row.order_id,
            contract_id=watched.row.contract_id,
            period=period,
            version=version,
            instructed_kw=Kw(watched.row.instructed_kw),
            measured_kw=measured.mean_kw,
            coverage=measured.coverage,
            gaps=measured.gaps,
            series=watched.series,
        )

    def _restore(self) -> None:
        """Watch what was watched when the process ended."""
        since = self._clock.now() - self._late_for

        def restore(connection: Connection) -> None:
            self._watch(connection, windows_open(connection))
            self._watch(connection, windows_ending_after(connection, since))

        run_read(self._engine, restore)

    def _reload(self, order_id: str) -> None:
        """Watch the windows of an order as they stand now."""

        def reload(connection: Connection) -> None:
            rows = windows_of(connection, order_id)
            self._watch(connection, sorted(rows, key=lambda row: row.period.end))

        run_read(self._engine, reload)
        self._wake.set()

    def _watch(self, connection: Connection, rows: Sequence[WindowRow]) -> None:
        meters = {
            contract_id: _meters(connection, contract_id)
            for contract_id in {row.contract_id for row in rows}
        }
        for row in rows:
            key = (row.order_id, row.contract_id, row.period.start)
            kept = self._open if row.closed is None else self._closed
            kept[key] = Watched(row, meters[row.contract_id])

    def _forget(self, now: datetime) -> None:
        for key, watched in list(self._closed.items()):
            if watched.row.period.end + self._late_for < now:
                del self._closed[key]


def _meters(connection: Connection, contract_id: str) -> tuple[str, ...]:
    return tuple(meters_of_assets(connection, contract_by_id(connection, contract_id).assets))
