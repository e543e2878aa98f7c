"""The timeline of one fleet: which entry acts on which devices, and what begins and ends when."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from firmware_sim.fleet.population import Population
from firmware_sim.fleet.scenario import Fault, Lasting, Scenario, Selector, bounds
from firmware_sim.randomness import stream

Indexes = npt.NDArray[np.intp]
_SHOWN: Final = 5


@dataclass(frozen=True, kw_only=True)
class Event:
    """One entry with the devices that it acts on."""

    entry: Fault
    begins: float
    """Seconds since the start."""
    ends: float
    devices: Indexes
    """In ascending order."""


class Timeline:
    """Entries by time; asked step by step."""

    def __init__(self, scenario: Scenario, population: Population, *, seed: int) -> None:
        self.events = [
            Event(entry=entry, begins=begins, ends=ends,
                  devices=select(entry, number, scenario.name, population, seed))
            for number, entry in enumerate(scenario.timeline)
            for begins, ends in (bounds(entry),)
        ]  # fmt: skip
        self._waiting = sorted(
            (event for event in self.events if len(event.devices)), key=lambda event: event.begins
        )
        self._active: list[Event] = []

    def advance(self, at: float) -> tuple[list[Event], bool, list[Event]]:
        """Entries that began since the last call, whether anything changed, those in force."""
        began: list[Event] = []
        while self._waiting and self._waiting[0].begins <= at:
            began.append(self._waiting.pop(0))
        lasting = [event for event in began if isinstance(event.entry, Lasting)]
        active = [event for event in (*self._active, *lasting) if at < event.ends]
        changed = bool(began) or len(active) != len(self._active)
        self._active = active
        return began, changed, active


def select(
    entry: Fault, number: int, name: str, population: Population, seed: int
) -> Indexes:  # fmt: skip
    """Devices of an entry, the `number`th of the scenario `name`; the same for the same seed."""
    selector = entry.devices if isinstance(entry.devices, Selector) else Selector()
    if selector.protocol not in {None, population.protocol}:
        return np.empty(0, dtype=np.intp)
    wanted, spared = frozenset(selector.ids), frozenset(selector.without)
    found = np.array(
        [
            index
            for index, device in enumerate(population.ids)
            if device.startswith(selector.prefix)
            and (not wanted or device in wanted)
            and device not in spared
        ],
        dtype=np.intp,
    )
    part = selector.count
    if selector.share is not None:
        part = max(1, round(selector.share * len(found)))
    if part is None or part >= len(found):
        return found
    label = f"fleet/{population.protocol}/{zlib.crc32(name.encode())}/{number}"
    return np.sort(stream(seed, label).permutation(found)[:part])


def lines(timeline: Timeline, population: Population) -> Iterator[str]:
    """The timeline in words, one line for each entry that concerns this fleet."""
    for event in sorted(timeline.events, key=lambda one: one.begins):
        span = f"{event.begins:g} s"
        if isinstance(event.entry, Lasting):
            span += f" to {event.ends:g} s"
        given = event.entry.parameters().items()
        details = ", ".join(f"{name} {value}" for name, value in given if value is not None)
        shown = [population.ids[index] for index in event.devices[:_SHOWN]]
        more = ", ..." if len(event.devices) > _SHOWN else ""
        who = f"{len(event.devices)} of {len(population)} {population.protocol} devices"
        named = f": {', '.join(shown)}{more}" if shown else ""
        kind = event.entry.kind + (f" ({details})" if details else "")
        yield f"{span}  {kind}  {who}{named}"
