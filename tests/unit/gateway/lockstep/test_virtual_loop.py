"""The event loop of a virtual day: time that jumps, in order, and never by itself."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from gateway.lockstep.clock import LockstepClock
from gateway.lockstep.loop import StuckError, VirtualLoop

START = datetime(2017, 7, 20, 16, 0, tzinfo=UTC)
DAY_S = 86_400.0
INSTANT_S = 5.0
"""Wall seconds that a day without work may take, on a machine with other things to do."""


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    with closing(VirtualLoop()) as made:
        yield made


async def note(loop: VirtualLoop, seconds: float, log: list[tuple[float, str]], name: str) -> None:
    await asyncio.sleep(seconds)
    log.append((loop.time(), name))


def test_a_day_passes_without_waiting(loop: VirtualLoop) -> None:
    began = time.monotonic()
    loop.run_until_complete(asyncio.sleep(DAY_S))
    assert loop.time() == pytest.approx(DAY_S)
    assert time.monotonic() - began < INSTANT_S


def test_timers_run_in_the_order_of_their_time_at_their_time(loop: VirtualLoop) -> None:
    log: list[tuple[float, str]] = []

    async def scenario() -> None:
        delays = {"noon": 43_200.0, "late": 80_000.0, "soon": 0.5, "soon after": 0.6}
        await asyncio.gather(*(note(loop, each, log, name) for name, each in delays.items()))

    loop.run_until_complete(scenario())
    assert [name for _, name in log] == ["soon", "soon after", "noon", "late"]
    assert [at for at, _ in log] == pytest.approx([0.5, 0.6, 43_200.0, 80_000.0])


def test_timers_of_one_instant_run_in_the_same_order_every_time() -> None:
    def order() -> list[int]:
        log: list[int] = []
        with closing(VirtualLoop()) as loop:
            for number in range(50):
                loop.call_at(60.0 + number % 3, log.append, number)
            loop.run_until_complete(asyncio.sleep(65.0))
        return log

    first = order()
    assert [number % 3 for number in first] == sorted(number % 3 for number in range(50))
    assert order() == first


def test_time_stands_still_while_there_is_something_to_do(loop: VirtualLoop) -> None:
    async def busy() -> float:
        loop.call_later(0.001, lambda: None)
        for _ in range(1000):
            await asyncio.sleep(0)
        return loop.time()

    assert loop.run_until_complete(busy()) == 0.0


def test_a_timeout_of_hours_ends_at_its_hour(loop: VirtualLoop) -> None:
    async def waiting() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 7200.0)
        return loop.time()

    assert loop.run_until_complete(waiting()) == pytest.approx(7200.0)


def test_a_day_that_would_wait_for_ever_is_stuck_and_says_so(loop: VirtualLoop) -> None:
    with pytest.raises(StuckError, match="nothing is ready and nothing is due"):
        loop.run_until_complete(asyncio.Event().wait())


def test_what_would_go_to_a_thread_is_done_at_once_in_the_loop(loop: VirtualLoop) -> None:
    async def scenario() -> tuple[int, float]:
        return await asyncio.to_thread(threading.get_ident), loop.time()

    assert loop.run_until_complete(scenario()) == (threading.get_ident(), 0.0)


def test_an_error_of_such_work_is_handed_to_whoever_waits_for_it(loop: VirtualLoop) -> None:
    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)

    loop.run_until_complete(scenario())


def test_held_time_waits_for_a_real_answer_and_does_not_jump_to_a_timeout(
    loop: VirtualLoop,
) -> None:
    here, there = socket.socketpair()
    with closing(here), closing(there):
        here.setblocking(False)
        answering = threading.Timer(0.05, there.send, [b"yes"])
        answering.start()
        with loop.holding_time():
            answer = loop.run_until_complete(asyncio.wait_for(loop.sock_recv(here, 3), 10.0))
        answering.join()
        assert (answer, loop.time()) == (b"yes", 0.0)


def test_time_moves_on_once_it_is_not_held_any_more(loop: VirtualLoop) -> None:
    with loop.holding_time(), loop.holding_time():
        loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(3600.0))
    assert loop.time() == pytest.approx(3600.0)


def test_the_clock_follows_the_loop(loop: VirtualLoop) -> None:
    clock = LockstepClock(loop, START)
    assert (clock.now(), clock.monotonic()) == (START, 0.0)
    loop.run_until_complete(asyncio.sleep(90.0))
    assert clock.now() == START + timedelta(seconds=90)
    assert clock.monotonic() == pytest.approx(90.0)
    assert clock.wall_seconds(90.0) == 90.0


def test_who_sleeps_until_an_instant_wakes_at_it_and_never_before(loop: VirtualLoop) -> None:
    clock = LockstepClock(loop, START)
    instants = [START + timedelta(hours=hour, microseconds=hour * 7 + 1) for hour in range(24)]

    async def scenario() -> list[datetime]:
        woken = []
        for at in instants:
            await clock.sleep_until(at)
            woken.append(clock.now())
        return woken

    woken = loop.run_until_complete(scenario())
    late = [now - at for now, at in zip(woken, instants, strict=True)]
    assert min(late) >= timedelta(0)
    assert max(late) <= timedelta(milliseconds=1)


def test_an_instant_that_has_passed_is_not_waited_for(loop: VirtualLoop) -> None:
    clock = LockstepClock(loop, START)
    loop.run_until_complete(clock.sleep_until(START - timedelta(days=1)))
    loop.run_until_complete(clock.sleep_until(START))
    assert clock.now() == START
