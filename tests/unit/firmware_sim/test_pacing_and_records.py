"""The plant keeps pace with the wall; truth and actions are written down."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from firmware_sim.pacing import Pace
from firmware_sim.planning import Planned, Request, plan
from firmware_sim.plant import Moment, Plant
from firmware_sim.records import Truth, WireLog
from firmware_sim.world import Fault
from marketplace_core.simtime import AffineTime
from marketplace_core.units import Kw
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading
from tests.harness.days import DATA

STEP = timedelta(seconds=10)


@pytest.fixture(scope="module")
def planned() -> Planned:
    return plan(Request(seed=1, homes=1, chargers=1, sites=0), DATA)


class Watch:
    """Collects what a pace hands out; commands can be changed while it runs."""

    def __init__(self, planned: Planned, speed: float, late: timedelta = timedelta(0)) -> None:
        self.commands: dict[str, float | None] = {}
        self.steps: list[list[Moment]] = []
        self.readings: list[Reading] = []
        self.actions: list[tuple[str, str, dict[str, Any]]] = []
        self.plant = Plant(*planned, DATA)
        self.start = self.plant.at
        self.pace = Pace(
            self.plant,
            time_map=AffineTime(self.start, datetime.now(UTC) - late, speed),
            step=STEP,
            commands=lambda: dict(self.commands),
            on_step=self.steps.append,
            on_minute=self.readings.extend,
            record=self.record,
        )

    def record(self, device: str, action: str, /, **detail: object) -> None:
        self.actions.append((device, action, detail))


async def test_no_step_is_skipped_however_fast_or_late(planned: Planned) -> None:
    watch = Watch(planned, speed=3600.0, late=timedelta(seconds=1))
    async with asyncio.timeout(20):
        await watch.pace.run(watch.start + timedelta(hours=2))
    assert len(watch.steps) == 720
    assert watch.plant.at == watch.start + timedelta(hours=2)
    starts = sorted({reading.start for reading in watch.readings})
    assert len(starts) == 120
    assert all(b - a == timedelta(minutes=1) for a, b in pairwise(starts))


async def test_the_plant_never_runs_ahead_of_the_clock(planned: Planned) -> None:
    watch = Watch(planned, speed=600.0)
    async with asyncio.timeout(20):
        await watch.pace.run(watch.start + timedelta(minutes=5))
    took = datetime.now(UTC) - watch.pace._map.to_wall(watch.start)
    assert took >= timedelta(minutes=5) / 600


async def test_cancelling_ends_it_between_two_steps(planned: Planned) -> None:
    watch = Watch(planned, speed=60.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await watch.pace.run(watch.start + timedelta(days=1))
    assert watch.plant.at == watch.start + len(watch.steps) * STEP


def test_a_change_of_command_is_noted_once_and_so_is_the_fallback(planned: Planned) -> None:
    watch = Watch(planned, speed=1.0)
    battery = planned.scenario.homes[0].battery
    for command in (None, 2.0, 2.0, None, None):
        watch.commands[battery] = command
        watch.pace.advance()
    assert watch.actions == [
        (battery, "effect", {"commanded_kw": 2.0, "was_kw": None}),
        (battery, "effect", {"commanded_kw": None, "was_kw": 2.0}),
    ]


def test_each_step_is_announced_with_its_market_time(planned: Planned) -> None:
    watch = Watch(planned, speed=1.0)
    seen: list[datetime] = []
    watch.pace._before_step = seen.append
    watch.pace.advance()
    watch.pace.advance()
    assert seen == [watch.start, watch.start + STEP]


def test_truth_is_powers_and_faults_when_they_begin_and_nothing_else(tmp_path: Path) -> None:
    at = datetime(2017, 7, 21, tzinfo=UTC)
    fault = Fault(
        device="dev_a", kind=FlagKind.IGNORES, at=at + timedelta(minutes=1),
        until=at + timedelta(minutes=9),
    )  # fmt: skip
    with Truth(tmp_path / "new", [fault]) as truth:
        for minute in range(3):
            start = at + timedelta(minutes=minute)
            truth.minute([Reading(series="dev_a", start=start, seconds=60, power_kw=Kw(-1.25))])
        truth.minute([])
        # read while the file is still open: what a kill would leave behind
        lines = (tmp_path / "new" / "truth.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"at": "2017-07-21T00:00:00.000Z", "device": "dev_a", "power_kw": -1.25},
        {"at": "2017-07-21T00:01:00.000Z", "until": "2017-07-21T00:09:00.000Z",
         "device": "dev_a", "fault": "ignores"},
        {"at": "2017-07-21T00:01:00.000Z", "device": "dev_a", "power_kw": -1.25},
        {"at": "2017-07-21T00:02:00.000Z", "device": "dev_a", "power_kw": -1.25},
    ]  # fmt: skip


def test_the_wire_log_survives_a_crash_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with WireLog(tmp_path, lambda: datetime(2017, 7, 21, tzinfo=UTC)) as wire:
            wire.note("dev_a", "write", register=40_123, value=[1, 2])
            lines = (tmp_path / "wire.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == 2 * [
        {"at": "2017-07-21T00:00:00.000Z", "device": "dev_a", "action": "write",
         "register": 40_123, "value": [1, 2]}
    ]  # fmt: skip
