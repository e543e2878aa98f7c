"""What devices are told of stored readings, and how often."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from adapters.mqtt.confirmations import _REST_S, Confirmations
from gateway.lockstep.loop import VirtualLoop

Told = list[tuple[float, str, int, int]]


def told(*committed: tuple[float, str, int, int]) -> Told:
    """What goes out, and when, if commits happen at these virtual seconds."""
    loop, out = VirtualLoop(), Told()

    async def run() -> None:
        began = loop.time()

        def stored(device_id: str, boot: int, through: int) -> None:
            out.append((round(loop.time() - began, 3), device_id, boot, through))

        confirmations = Confirmations(stored)
        for at, device_id, boot, through in committed:
            await asyncio.sleep(began + at - loop.time())
            confirmations.stored(device_id, boot, through)
        await asyncio.sleep(5 * _REST_S)
        confirmations.close()

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    return out


def test_a_device_that_sends_now_and_then_is_told_at_once() -> None:
    committed = [(0.0, "a", 1, 3), (2.0, "a", 1, 4), (4.0, "a", 1, 5)]
    assert told(*committed) == committed


def test_of_many_commits_in_a_row_the_first_and_the_newest_are_told() -> None:
    burst = [(0.01 * number, "a", 1, number) for number in range(20)]
    assert told(*burst) == [(0.0, "a", 1, 0), (_REST_S, "a", 1, 19)]


def test_a_stream_is_confirmed_again_and_again_up_to_its_end() -> None:
    stream = [(0.1 * number, "a", 1, number) for number in range(40)]
    out = told(*stream)
    assert [each[3] for each in out] == sorted({each[3] for each in out})
    assert out[-1][3] == 39
    assert len(out) <= 2 + 4.0 / _REST_S
    gaps = [after[0] - before[0] for before, after in pairwise(out)]
    assert min(gaps) >= _REST_S


def test_devices_do_not_wait_for_each_other() -> None:
    committed = [(0.0, "a", 1, 1), (0.1, "b", 7, 1)]
    assert told(*committed) == committed


def test_nobody_is_told_after_the_end() -> None:
    loop, out = VirtualLoop(), list[int]()

    async def run() -> None:
        confirmations = Confirmations(lambda _device, _boot, through: out.append(through))
        confirmations.stored("a", 1, 1)
        confirmations.stored("a", 1, 2)
        confirmations.close()
        await asyncio.sleep(5 * _REST_S)

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    assert out == [1]


def test_after_a_new_boot_the_newest_boot_is_what_counts() -> None:
    out = told((0.0, "a", 1, 9), (0.1, "a", 2, 0))
    assert out == [(0.0, "a", 1, 9), (_REST_S, "a", 2, 0)]
