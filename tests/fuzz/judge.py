"""Feeds frames to one codec and judges it: what it raises, how long it takes, what it keeps.

Time is processor time of this thread, so that a busy machine is no fault. A codec that does
not come back is interrupted by a timer of processor time as well.
"""

from __future__ import annotations

import gc
import random
import signal
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.fuzz.mutation import Mutator

SLOW_NS: Final = 50_000_000
HANG_S: Final = 5.0
BATCH: Final = 1_000
"""Frames of one generator of random numbers: the unit in which a run can be repeated."""
MOST_FAULTS: Final = 5
BLOCKS_PER_FRAME: Final = 0.02
BLOCKS: Final = 4_000
"""Live blocks of Python's allocator that the second half of a run may add: a codec that keeps
one object for each fiftieth frame is found, caches that still fill are not."""
RESIDENT_BYTES: Final = 12 * 2**20
"""Bytes of resident memory that the second half may add: what C libraries keep shows here."""
Mark = Callable[[int, int], None]


@dataclass(frozen=True)
class Target:
    """One codec."""

    name: str
    feed: Callable[[bytes], object]
    """Give it a frame; truthy when the frame was understood."""
    errors: tuple[type[Exception], ...]
    """What it may raise."""
    seeds: Sequence[bytes]
    tokens: Sequence[bytes] = ()
    make: Callable[[random.Random], bytes] | None = None
    """A valid frame of random contents."""
    share: int = 1
    """Of the frames that all codecs take together."""


@dataclass(frozen=True)
class Fault:
    """What a codec may not do."""

    kind: str
    """crash | slow | hang | leak"""
    frame: bytes
    words: str

    def __str__(self) -> str:
        shown = self.frame[:200].hex() + ("..." if len(self.frame) > 200 else "")
        return f"{self.kind}: {self.words}; {len(self.frame)} bytes {shown}"


@dataclass
class Verdict:
    """How a run went."""

    target: str
    frames: int = 0
    understood: int = 0
    cpu_s: float = 0.0
    slowest_ms: float = 0.0
    blocks: int = 0
    """Live blocks that the second half added."""
    resident: int = 0
    faults: list[Fault] = field(default_factory=list)


class HangError(BaseException):
    """A codec has used the processor for longer than any frame is worth.

    No `except Exception` of the codec's may keep it.
    """


def batch(target: Target, seed: int, number: int) -> list[bytes]:
    """The frames of one batch; the same whenever and wherever they are made."""
    rng = random.Random(f"{target.name}/{seed}/{number}")
    fresh = [target.make(rng) for _ in range(8)] if target.make else []
    mutator = Mutator(rng, [*target.seeds, *fresh], target.tokens)
    return [*fresh, *(mutator.frame() for _ in range(BATCH - len(fresh)))]


def run(
    target: Target, frames: int, seed: int, *, first: int = 0,
    mark: Mark = lambda _batch, _index: None, said: Callable[[int], None] = lambda _frames: None,
) -> Verdict:  # fmt: skip
    """Feed `frames` frames, in whole batches; stops at the fifth fault or the first hang.

    `first`: the batch to begin with. `mark` is told of each frame before it is fed: whoever
    finds this process dead knows which one it was. `said` hears how many are done.
    """
    verdict, began = Verdict(target.name), time.process_time()
    last = first + -(-frames // BATCH)
    middle, held = first + (last - first) // 2, (0, 0)
    with _interrupted() as restart:
        for number in range(first, last):
            if number == middle:
                held = _held()
            restart()
            _feed(target, batch(target, seed, number), verdict, lambda at, n=number: mark(n, at))
            said(verdict.frames)
            hung = any(fault.kind == "hang" for fault in verdict.faults)
            if hung or len(verdict.faults) >= MOST_FAULTS:
                break
    if not verdict.faults and middle > first:
        _compare(target, verdict, held, seed, range(middle, last))
    verdict.cpu_s = time.process_time() - began
    return verdict


def _feed(
    target: Target, frames: Sequence[bytes], verdict: Verdict, mark: Callable[[int], None]
) -> None:
    clock, feed, errors = time.thread_time_ns, target.feed, target.errors
    slowest = 0
    before = clock()
    for index, frame in enumerate(frames):
        mark(index)
        try:
            verdict.understood += bool(feed(frame))
        except errors:
            pass
        except HangError:
            _blame(verdict, "hang", frame, f"no answer after {HANG_S:.0f} s of processor time")
            break
        except Exception as error:  # noqa: BLE001 - whatever else comes out is what is looked for
            _blame(verdict, "crash", frame, _words(error))
            before = clock()
            continue
        after = clock()
        if after - before > slowest:
            slowest = after - before
            if slowest > SLOW_NS:
                slowest = _again(target, frame, slowest)
                if slowest > SLOW_NS:
                    _blame(verdict, "slow", frame, f"{slowest / 1e6:.0f} ms of processor time")
            after = clock()
        before = after
    verdict.frames += len(frames)
    verdict.slowest_ms = max(verdict.slowest_ms, slowest / 1e6)


def _again(target: Target, frame: bytes, taken: int) -> int:
    """The least time that a frame takes: what only happened once was something else's work."""
    for _ in range(3):
        before = time.thread_time_ns()
        with suppress(*target.errors):
            target.feed(frame)
        taken = min(taken, time.thread_time_ns() - before)
    return taken


def _blame(verdict: Verdict, kind: str, frame: bytes, words: str) -> None:
    if words not in {fault.words for fault in verdict.faults}:
        verdict.faults.append(Fault(kind, frame, words))


def _words(error: Exception) -> str:
    """The error and the line that raised it: one fault however many frames find it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (
        ""
        if trace is None
        else f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    )
    return f"{type(error).__name__}{place}: {str(error)[:80]}"


def _held() -> tuple[int, int]:
    """Live blocks and resident bytes of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return sys.getallocatedblocks(), pages * 4_096


def _compare(
    target: Target, verdict: Verdict, held: tuple[int, int], seed: int, second: range
) -> None:
    blocks, resident = _held()
    verdict.blocks, verdict.resident = blocks - held[0], resident - held[1]
    allowed = BLOCKS + BLOCKS_PER_FRAME * BATCH * len(second)
    if verdict.blocks > allowed or verdict.resident > RESIDENT_BYTES:
        where = _keepers(target, seed, second[: min(len(second), 20)])
        words = f"{verdict.blocks} blocks and {verdict.resident / 2**20:.0f} MiB more: {where}"
        _blame(verdict, "leak", b"", words)


def _keepers(target: Target, seed: int, numbers: Sequence[int]) -> str:
    """The lines that keep most, found by feeding some batches once more."""
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for number in numbers:
            _feed(target, batch(target, seed, number), Verdict(target.name), lambda _: None)
        gc.collect()
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    grown = after.compare_to(before, "lineno")[:3]
    return ", ".join(
        f"{Path(one.traceback[0].filename).name}:{one.traceback[0].lineno} {one.size_diff:+d} bytes"
        for one in grown
    )


@contextmanager
def _interrupted() -> Iterator[Callable[[], None]]:
    """A timer of processor time that raises HangError unless it is restarted."""

    def raised(*_: Any) -> None:
        raise HangError

    before = signal.signal(signal.SIGVTALRM, raised)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S) and None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
