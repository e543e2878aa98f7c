"""How a virtual service ended: cleanly only if it ended, raised nothing and left nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.demo.virtual import VirtualWorld, end_of
from gateway.lockstep.loop import VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    made.close()


async def ends() -> None:
    await asyncio.sleep(5.0)


async def raises() -> None:
    await ends()
    raise ValueError("the last root could not be written")


async def hangs() -> None:
    await asyncio.Event().wait()


async def gives_up() -> None:
    raise asyncio.CancelledError


async def leaves_something() -> None:
    loop = asyncio.get_running_loop()
    kept.append(loop.create_task(hangs()))


kept: list[asyncio.Task[None]] = []
"""A task that nobody holds may vanish before it is looked at."""


@pytest.mark.parametrize(
    ("service", "code"),
    [(ends, 0), (raises, 1), (hangs, 1), (gives_up, 1), (leaves_something, 1)],
)
def test_only_a_service_that_ended_and_left_nothing_is_clean(
    loop: VirtualLoop, service: Callable[[], Coroutine[Any, Any, None]], code: int
) -> None:
    running = loop.create_task(service())
    assert end_of(loop, running) == code
    assert running.done()
    assert asyncio.all_tasks(loop) == set()


class Pipe:
    """Devices that end well."""

    def end(self) -> int:
        return 0


@pytest.mark.parametrize(("service", "code"), [(ends, 0), (raises, 1)])
def test_a_world_that_stops_says_how_its_gateway_ended(
    tmp_path: Path, service: Callable[[], Coroutine[Any, Any, None]], code: int
) -> None:
    settings = tmp_path / "flexway.toml"
    settings.write_text("lab = true\n")
    world = VirtualWorld(settings, [], {}, datetime(2017, 7, 20, 17, tzinfo=UTC))
    world._pipe = Pipe()  # type: ignore[assignment]
    world._running = world._loop.create_task(service())
    assert world.stop() == {"gateway": code, "devices": 0}
