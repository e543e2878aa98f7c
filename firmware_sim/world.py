"""What is behind a scenario and hidden from the market: the real data, the seed, the faults."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from firmware_sim.scenario import VERSION, read
from marketplace_core.errors import ConfigError
from marketplace_core.verification.flags import FlagKind


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong with one device, on purpose."""

    device: str
    kind: FlagKind
    at: datetime
    """When it begins, a full minute."""
    until: datetime
    """When it is over, a full minute."""
    moments: tuple[datetime, ...] = ()
    """Full minutes at which a malformed or replayed message goes out."""
    share: float = 0.0
    """Part of the commanded power that a device which clamps still does."""

    def active(self, at: datetime) -> bool:
        """Whether it goes on at an instant."""
        return self.at <= at < self.until


class HomeSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """What is behind one home."""

    data_home: str
    """Name of the home in the data."""
    stored_kwh: float
    """In the battery when the simulation starts."""


class Station(msgspec.Struct, frozen=True, kw_only=True):
    """Whose cars come to one charging station."""

    station: str
    """Name of the station in the data."""
    weeks: int
    """Whole weeks of local time by which its sessions are moved (negative = earlier)."""


class World(msgspec.Struct, frozen=True, kw_only=True):
    """The private half of a scenario."""

    version: int
    seed: int
    data: str
    """Folder of the real data."""
    homes: dict[str, HomeSecrets]
    """By home id."""
    stations: dict[str, Station]
    """By charger id."""
    fleets: dict[str, tuple[Station, ...]]
    """By fleet id."""
    sites: dict[str, tuple[int, ...]]
    """By car park id: each adds all sessions of the data, moved by so many whole weeks."""
    faults: tuple[Fault, ...]
    """In the order in which they begin."""


def load_world(path: Path) -> World:
    """Read a world. Raises ConfigError naming the file and what is wrong."""
    world = read(path, World, "world")
    if world.version != VERSION:
        msg = f"{path} has world version {world.version}, this simulator reads {VERSION}"
        raise ConfigError(msg)
    return world
