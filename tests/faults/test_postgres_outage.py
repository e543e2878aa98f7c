"""PostgreSQL is killed, cut off or slow to come back: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from gateway.store.engine import migrate, open_engine, run_read, snapshot
from gateway.store.journal import Journal, read_after
from gateway.store.readings_postgres import PostgresReadings
from gateway.store.verify import verify_journal
from gateway.store.writer import Transaction, Writer
from marketplace_core.errors import StoreError
from marketplace_core.events import OrderRejected
from marketplace_core.ports import Record
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading
from tests.harness.clocks import SteppingClock, eventually
from tests.harness.lab import HOST
from tests.harness.servers import PASSWORD, PostgresServer, postgres

pytestmark = [pytest.mark.process]
START = datetime(2017, 7, 20, 23, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as running:
        yield running


@contextmanager
def database(url: str, *, patience_s: float = 30.0) -> Iterator[Engine]:
    engine = open_engine(url, password=PASSWORD, patience_s=patience_s)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def running_writer(
    engine: Engine, published: list[Record], *, patience_s: float = 30.0
) -> Iterator[Writer]:
    writer = Writer(engine, Journal(SteppingClock(), 2), published.extend, patience_s=patience_s)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop()


async def append(writer: Writer, number: int) -> Record:
    fact = OrderRejected(order_id=f"ord_{number % 5}", reason=str(number))

    def work(transaction: Transaction) -> Record:
        return transaction.append(fact.order_id, fact)

    return await writer.transact(work)


def stored(engine: Engine) -> list[Record]:
    with snapshot(engine) as connection:
        assert verify_journal(connection, []).verified
        return list(read_after(connection, {}, 100_000))


async def test_the_writer_rides_out_a_killed_server(server: PostgresServer) -> None:
    """Many at once, killed in the middle: each is stored once, and everybody is told so."""
    published: list[Record] = []
    with database(server.database()) as engine:
        await asyncio.to_thread(migrate, engine)
        with running_writer(engine, published) as writer:
            numbers, acknowledged = itertools.count(), list[Record]()
            stop = asyncio.Event()

            async def client() -> None:
                while not stop.is_set():
                    acknowledged.append(await append(writer, next(numbers)))

            async with asyncio.TaskGroup() as tasks:
                for _ in range(20):
                    tasks.create_task(client())
                for _ in range(3):
                    await asyncio.sleep(0.3)
                    await asyncio.to_thread(server.kill)
                    before = len(acknowledged)
                    await asyncio.to_thread(server.start)
                    await eventually(lambda: len(acknowledged) > before + 20, seconds=20,  # noqa: B023
                                     what="the writer to go on")  # fmt: skip
                stop.set()
        found = stored(engine)
        assert Counter(record.fact for record in found) == Counter(r.fact for r in acknowledged)
        assert sorted(published, key=_key) == sorted(found, key=_key)


def _key(record: Record) -> tuple[int, int]:
    return record.shard, record.sequence


async def test_what_was_acknowledged_survives_when_nobody_waits_any_more(
    server: PostgresServer,
) -> None:
    """With no patience units fail, honestly: what failed is absent or was in doubt."""
    published: list[Record] = []
    with database(server.database(), patience_s=0.0) as engine:
        await asyncio.to_thread(migrate, engine)
        with running_writer(engine, published, patience_s=0.0) as writer:
            before = await asyncio.gather(*(append(writer, n) for n in range(50)))
            await asyncio.to_thread(server.kill)
            lost = await asyncio.gather(*(append(writer, 100 + n) for n in range(3)),
                                        return_exceptions=True)  # fmt: skip
            await asyncio.to_thread(server.start)
            after = await append(writer, 200)
        assert all(isinstance(error, StoreError) for error in lost)
        assert stored(engine) == sorted([*before, after], key=_key)


class Cutter:
    """A relay that cuts the connection at a COMMIT, before or after the server has it."""

    def __init__(self, target: int, when: str) -> None:
        self._target = target
        self._when = when
        self._cut: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.armed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        _end(self._listener)

    def _accept(self) -> None:
        try:
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((HOST, self._target))
                for work, ends in ((self._up, (near, far)), (self._down, (far, near))):
                    threading.Thread(target=work, args=ends, daemon=True).start()
        except OSError:
            return

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        while data := _receive(near):
            if self.armed.is_set() and b"COMMIT" in data:
                self.armed.clear()
                self._cut.add(near)
                if self._when == "after":
                    far.sendall(data)
                    time.sleep(0.3)  # the server commits; its answer is not passed on
                break
            far.sendall(data)
        _end(near, far)

    def _down(self, far: socket.socket, near: socket.socket) -> None:
        while (data := _receive(far)) and near not in self._cut:
            near.sendall(data)
        _end(near, far)


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(1 << 16)
    except OSError:
        return b""


def _end(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextmanager
def cutter(server: PostgresServer, url: str, when: str) -> Iterator[tuple[Cutter, str]]:
    relay = Cutter(server.port, when)
    through = make_url(url).set(port=relay.port).render_as_string(hide_password=False)
    try:
        yield relay, through
    finally:
        relay.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_in_doubt_is_stored_once(server: PostgresServer, when: str) -> None:
    """The connection goes at the COMMIT; the writer finds out whether the server has it."""
    published: list[Record] = []
    with cutter(server, server.database(), when) as (relay, url), database(url) as engine:
        await asyncio.to_thread(migrate, engine)
        with running_writer(engine, published) as writer:
            first = await append(writer, 0)
            relay.armed.set()
            doubted = await asyncio.gather(*(append(writer, n) for n in (1, 2, 3)))
            assert not relay.armed.is_set()
            last = await append(writer, 4)
        everything = [first, *doubted, last]
        assert published == everything
        assert stored(engine) == sorted(everything, key=_key)


async def test_what_came_through_after_all_is_published_later(server: PostgresServer) -> None:
    """Given up in doubt: the caller is told that it failed, the street hears of it all the same."""
    published: list[Record] = []
    url = server.database()
    with cutter(server, url, "after") as (relay, through), database(through) as engine:
        await asyncio.to_thread(migrate, engine)
        with running_writer(engine, published, patience_s=0.0) as writer:
            relay.armed.set()
            with pytest.raises(StoreError, match="commit failed"):
                await append(writer, 1)
            last = await append(writer, 2)
        assert published == stored(engine)
        assert len(published) == 2
        assert last in published


def reading(number: int) -> Reading:
    start = START + timedelta(minutes=number)
    return Reading(
        series=f"m-{number % 3}", start=start, seconds=60.0, power_kw=Kw(1.0), boot=1,
        sequence=number // 3,
    )  # fmt: skip


async def test_readings_that_were_acknowledged_survive_a_kill(server: PostgresServer) -> None:
    """A device sends until it is told `stored`, as ours do; the server dies twice meanwhile."""
    url = server.database()
    with database(url, patience_s=0.0) as engine:
        store = PostgresReadings(engine)
        store.start()
        failures, fresh = 0, list[Reading]()

        async def device(numbers: range) -> None:
            nonlocal failures
            for number in numbers:
                while True:
                    try:
                        fresh.extend(await store.store([reading(number)]))
                    except StoreError:
                        failures += 1
                        await asyncio.sleep(0.02)
                    else:
                        break

        async def killer() -> None:
            for _ in range(2):
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(0.2)
                await asyncio.to_thread(server.start)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(killer())
            for first in range(3):
                tasks.create_task(device(range(first, 1500, 3)))
        assert failures > 0
        found = [store.between(f"m-{s}", START, START + timedelta(days=2)) for s in range(3)]
        assert [len(data.seconds) for data in found] == [500, 500, 500]
        assert await store.store([reading(n) for n in range(1500)]) == []
        assert Counter(map(str, fresh)).most_common(1)[0][1] == 1
        store.stop()


async def test_reading_waits_for_a_server_that_comes_back(server: PostgresServer) -> None:
    with database(server.database(), patience_s=0.0) as engine:
        store = PostgresReadings(engine, patience_s=20.0)
        store.start()
        await store.store([reading(0)])
        await asyncio.to_thread(server.kill)
        asked = asyncio.ensure_future(asyncio.to_thread(store.latest))
        await asyncio.sleep(0.3)
        assert not asked.done()
        await asyncio.to_thread(server.start)
        assert [found.series for found in await asked] == ["m-0"]
        store.stop()


@pytest.mark.parametrize("when", ["before its query", "after its query"])
def test_a_read_outlives_a_server_killed_under_it(server: PostgresServer, when: str) -> None:
    """Found with the journal's root: the rollback that ends a read met the dead server."""
    tries = []

    def read(connection: Connection) -> object:
        tries.append(when)
        found = connection.scalar(text("SELECT 42")) if when == "after its query" else None
        if len(tries) == 1:
            server.kill()
            server.start()
        return found or connection.scalar(text("SELECT 42"))

    with database(server.database()) as engine:
        assert run_read(engine, read) == 42
    assert len(tries) == 2


def test_a_read_that_is_wrong_is_not_run_again(server: PostgresServer) -> None:
    tries = []

    def read(connection: Connection) -> None:
        tries.append("SELECT no_such_column")
        connection.execute(text(tries[-1]))

    with database(server.database()) as engine:
        with pytest.raises(ProgrammingError):
            run_read(engine, read)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
    assert len(tries) == 1


async def test_the_password_is_in_no_error(server: PostgresServer) -> None:
    url = server.database()
    with database(url.replace("flexway@", "nobody@"), patience_s=0.0) as engine:
        with pytest.raises(Exception, match="authentication failed") as caught:
            engine.connect()
        assert PASSWORD not in f"{caught.value!r} {engine.url!r} {engine!r}"
