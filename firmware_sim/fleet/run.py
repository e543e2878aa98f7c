"""One run of a fleet's process: its clock, its signals, its ready file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_sim.fleet.population import Population
from firmware_sim.fleet.scenario import Scenario
from firmware_sim.fleet.stats import Stats


def stopwatch() -> Callable[[], float]:
    """A clock of seconds since now."""
    began = time.monotonic()
    return lambda: time.monotonic() - began


@dataclass(frozen=True)
class Run:
    """What both protocols have in common."""

    population: Population
    scenario: Scenario
    seed: int
    stats: Stats
    ready: Path | None
    """Written once everything is up."""
    lasts_s: float | None
    """None = until SIGTERM or SIGINT."""

    async def until_stopped(
        self, stop: asyncio.Event, running: Coroutine[Any, Any, None], up: asyncio.Event,
        content: Callable[[], Mapping[str, Any]],
    ) -> None:  # fmt: skip
        """Run until the end; `content` goes into the ready file once `up` is set."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if self.lasts_s is not None:
            loop.call_later(self.lasts_s, stop.set)

        async def announce() -> None:
            await up.wait()
            self._announce(content())

        async with asyncio.TaskGroup() as tasks:
            announcing = tasks.create_task(announce())
            await running
            announcing.cancel()

    def _announce(self, content: Mapping[str, Any]) -> None:
        if self.ready is not None:
            part = self.ready.with_name(f"{self.ready.name}.part")
            part.write_text(json.dumps({"pid": os.getpid(), **content}), encoding="utf-8")
            part.replace(self.ready)
