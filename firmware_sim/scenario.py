"""A scenario: one market day, its devices, who owns them, and a market to try on them.

It is plain data (JSON through msgspec), made by `planning.py` from real data and a seed, and
holds what an aggregator would know. What nobody in the market may know (which real home or
week stands behind a device, what goes wrong and when) is a `world` of its own.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from firmware_sim.devices.battery import BatterySpec
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.errors import ConfigError
from marketplace_core.intervals import Interval
from marketplace_core.registry.asset import Asset
from marketplace_core.units import Direction


class MarketEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One span of the day in which the grid wants flexibility."""

    name: str
    direction: Direction
    interval: Interval


class MarketDay(msgspec.Struct, frozen=True, kw_only=True):
    """The day, its grid and its spans; all instants in UTC."""

    day: str
    """ISO date, local to the market."""
    timezone: str
    grid_minutes: int
    feeder: str
    currency: str
    history_start: datetime
    """First instant of the meter history, a local midnight."""
    sim_start: datetime
    """The devices begin to run; the meter history ends here."""
    events: tuple[MarketEvent, ...]
    """In order."""
    sim_end: datetime
    """End of what the scenario needs to be run for (the rebound included)."""

    def event(self, direction: Direction) -> MarketEvent:
        """The day's event of a direction."""
        return next(one for one in self.events if one.direction is direction)


class Seller(msgspec.Struct, frozen=True, kw_only=True):
    """An organisation that owns devices."""

    id: str
    name: str
    technology: str


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """A home with a battery, a PV inverter and a meter behind one Modbus gateway."""

    id: str
    seller: str
    battery: str
    inverter: str
    meter: str
    """Device ids; the meter's is also its reading series."""
    battery_spec: BatterySpec
    rated_pv_kw: float

    @property
    def units(self) -> dict[str, int]:
        """Modbus unit of each device id behind the home's gateway."""
        return {self.battery: 1, self.inverter: 2, self.meter: 3}


class Charger(msgspec.Struct, frozen=True, kw_only=True):
    """A charging station that speaks MQTT and is driven by itself."""

    id: str
    seller: str
    rate_kw: float


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Charging stations behind their aggregator's own backend: one device to everybody else."""

    id: str
    seller: str
    stations: int
    rate_kw: float
    """Of each station."""


class CarPark(msgspec.Struct, frozen=True, kw_only=True):
    """A workplace car park behind an OpenADR VEN."""

    id: str
    seller: str
    rate_kw: float
    """Of each of its stations."""
    capacity_kw: float
    """Of its connection."""
    ven_name: str


class SuggestedBid(msgspec.Struct, frozen=True, kw_only=True):
    """A bid that the scenario's numbers can stand behind."""

    event: str
    """Name of the event it is for."""
    seller: str
    assets: tuple[str, ...]
    kw: float
    price: Decimal
    """Utilisation price per MWh."""
    divisible: bool
    min_kw: float
    baseline: str
    """Baseline method that suits what is measured."""


class SuggestedNeed(msgspec.Struct, frozen=True, kw_only=True):
    """A need that the acceptable bids can just about meet."""

    event: str
    """Name of the event it is for."""
    buyer: str
    kw: float
    direction: Direction
    price_cap: Decimal
    baseline: str
    allowed_baselines: tuple[str, ...]


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a demonstration of the day should cause: no device is at fault."""

    kind: Literal["uplink_lost", "gateway_killed"]
    at: datetime
    until: datetime | None = None
    """When the uplink is back."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a market needs to register, and the devices that are to be reached."""

    version: int
    market: MarketDay
    sellers: tuple[Seller, ...]
    homes: tuple[Home, ...]
    chargers: tuple[Charger, ...]
    fleets: tuple[Fleet, ...]
    sites: tuple[CarPark, ...]
    profiles: tuple[DeviceProfile, ...]
    """Of every device that can be driven."""
    assets: tuple[Asset, ...]
    needs: tuple[SuggestedNeed, ...]
    """One per event."""
    bids: tuple[SuggestedBid, ...]
    incidents: tuple[Incident, ...]

    def series(self) -> tuple[str, ...]:
        """Every meter series, in a stable order."""
        meters = [home.meter for home in self.homes]
        fleets_and_sites = (*(one.id for one in self.fleets), *(one.id for one in self.sites))
        return (*meters, *(one.id for one in self.chargers), *fleets_and_sites)

    def protocols(self) -> dict[str, str]:
        """Protocol of every device that can be read, meters included, in a stable order."""
        found = {device: "modbus" for home in self.homes for device in home.units}
        found |= {one.id: "mqtt" for one in self.chargers}
        found |= {one.id: "openadr" for one in self.sites}
        return found | {one.id: "webhook" for one in self.fleets}


_T = TypeVar("_T", bound=msgspec.Struct)
VERSION = 2
STEP_DIVISORS = (10, 12, 15, 20, 30, 60)
"""Steps in market seconds that fill a minute exactly."""


def save(scenario: msgspec.Struct, path: Path) -> None:
    """Write a scenario (or its world) as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(scenario), indent=2) + b"\n")


def load(path: Path) -> Scenario:
    """Read a scenario. Raises ConfigError naming the file and what is wrong."""
    scenario = read(path, Scenario, "scenario")
    if scenario.version != VERSION:
        msg = f"{path} has scenario version {scenario.version}, this simulator reads {VERSION}"
        raise ConfigError(msg)
    return scenario


def read(path: Path, form: type[_T], what: str) -> _T:
    """Read JSON of a form. Raises ConfigError naming the file and what is wrong."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=form)
    except (OSError, msgspec.MsgspecError) as error:
        msg = f"{path} is no {what}: {error}; make one with `python -m firmware_sim plan`"
        raise ConfigError(msg) from error


def step_for(speed: float, shortest_wall_s: float = 0.05) -> timedelta:
    """Shortest step that divides a minute and takes `shortest_wall_s`. Raises ConfigError."""
    for seconds in STEP_DIVISORS:
        if seconds / speed >= shortest_wall_s:
            return timedelta(seconds=seconds)
    highest = STEP_DIVISORS[-1] / shortest_wall_s
    msg = f"speed {speed:g} is too high for the simulator: use --speed {highest:g} or less"
    raise ConfigError(msg)
