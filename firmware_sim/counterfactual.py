"""The same day with nobody commanding: what every device would have done by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from firmware_sim.dataset import DataSet
from firmware_sim.plant import MINUTE, Minutes, Plant
from firmware_sim.records import truth_rows
from firmware_sim.scenario import Scenario
from firmware_sim.world import World
from marketplace_core.verification.reading import Reading


def minutes(scenario: Scenario, world: World, data: DataSet) -> Iterator[list[Reading]]:
    """The readings of every minute of the day, without any command."""
    plant = Plant(scenario, world, data)
    sums = Minutes(plant.at)
    while plant.at < scenario.market.sim_end:
        since, time = plant.at, plant.at + MINUTE
        yield sums.add(since, time, plant.step(time, {}))


def write(scenario: Scenario, world: World, data: DataSet, out: Path) -> int:
    """Write the rows that `truth.jsonl` would have; return their number."""
    count = 0
    with out.open("w", encoding="utf-8") as stream:
        for readings in minutes(scenario, world, data):
            stream.write("".join(truth_rows(readings)))
            count += len(readings)
    return count
