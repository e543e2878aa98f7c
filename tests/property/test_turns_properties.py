"""One at a time on a line, nobody forgotten, and no poll between a command and its turn."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.modbus.turns import COMMAND, POLL, Turns

TICKS = st.integers(0, 6)


@dataclass(frozen=True)
class Job:
    lane: int
    arrives: int
    requests: int
    """A command makes several, one after the other."""
    lasts: int
    cancelled_after: int | None


@dataclass
class Line:
    """What happened on it, in its order."""

    turns: Turns = field(default_factory=Turns)
    pauses: int = 0
    on_the_wire: int = 0
    log: list[tuple[str, int]] = field(default_factory=list)

    async def pause(self) -> bool:
        """Every third request finds the line not free yet."""
        self.pauses += 1
        if self.pauses % 3:
            return False
        await ticks(2)
        return True

    async def request(self, number: int, job: Job) -> None:
        if number % 2 or not self.turns.take(job.lane):
            await self.turns.wait(job.lane, self.pause)
        assert self.on_the_wire == 0
        self.on_the_wire += 1
        self.log.append(("poll" if job.lane == POLL else "command", number))
        try:
            await ticks(job.lasts)
        finally:
            self.on_the_wire -= 1
            self.turns.pass_on()

    async def run(self, number: int, job: Job) -> None:
        await ticks(job.arrives)
        if job.lane == POLL:
            await self.request(number, job)
            return
        with self.turns.command():
            self.log.append(("arrived", number))
            for _ in range(job.requests):
                await self.request(number, job)
            self.log.append(("done", number))


async def ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


JOBS = st.lists(
    st.builds(
        Job, lane=st.sampled_from([COMMAND, POLL]), arrives=TICKS, requests=st.integers(1, 3),
        lasts=TICKS, cancelled_after=st.one_of(st.none(), st.none(), TICKS),
    ),
    max_size=12,
)  # fmt: skip


async def played(jobs: list[Job]) -> tuple[Line, list[asyncio.Task[None]]]:
    line = Line()
    tasks = [asyncio.create_task(line.run(number, job)) for number, job in enumerate(jobs)]

    async def cancel(task: asyncio.Task[None], after: int) -> None:
        await ticks(after)
        task.cancel()

    cancels = [
        asyncio.create_task(cancel(task, job.cancelled_after))
        for task, job in zip(tasks, jobs, strict=True)
        if job.cancelled_after is not None
    ]
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks, *cancels, return_exceptions=True)
    return line, tasks


@settings(deadline=None)
@given(jobs=JOBS)
def test_all_get_their_turn_one_at_a_time_and_commands_first(jobs: list[Job]) -> None:
    line, tasks = asyncio.run(played(jobs))
    for task, job in zip(tasks, jobs, strict=True):
        assert task.cancelled() or (task.done() and task.exception() is None)
        assert job.cancelled_after is not None or not task.cancelled()
    assert line.turns.idle
    ended = {number for kind, number in line.log if kind == "done"}
    for number in ended:
        # A poll may have been handed the line as the command came: that one, and no other.
        came, left = line.log.index(("arrived", number)), line.log.index(("done", number))
        assert [kind for kind, _ in line.log[came:left]].count("poll") <= 1
