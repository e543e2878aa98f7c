"""A scenario: one market day, its devices, who owns them, and a market to try on them.

It is plain data (JSON through msgspec), made by `planning.py` from real data and a seed.
The physics in `plant.py` and the history in `history.py` are functions of it and the data.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec

from firmware_sim.devices.battery import BatterySpec
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.errors import ConfigError
from marketplace_core.intervals import Interval
from marketplace_core.registry.asset import Asset


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
    event: Interval
    sim_end: datetime
    """End of what the scenario needs to be run for (the rebound included)."""

    @property
    def event_hours(self) -> float:
        """Length of the event in hours."""
        return self.event.hours


class Seller(msgspec.Struct, frozen=True, kw_only=True):
    """An organisation that owns devices."""

    id: str
    name: str
    technology: str


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """A home with a battery, a PV inverter and a meter behind one Modbus gateway."""

    id: str
    seller: str
    data_home: str
    """Name of the home in the data."""
    battery: str
    inverter: str
    meter: str
    """Device ids; the meter's is also its reading series."""
    battery_spec: BatterySpec
    stored_kwh: float
    """In the battery when the simulation starts."""
    rated_pv_kw: float

    @property
    def units(self) -> dict[str, int]:
        """Modbus unit of each device id behind the home's gateway."""
        return {self.battery: 1, self.inverter: 2, self.meter: 3}


class Charger(msgspec.Struct, frozen=True, kw_only=True):
    """A charging station that speaks MQTT, with its real cars."""

    id: str
    seller: str
    station: str
    weeks: int
    """Whole weeks of local time by which its sessions are moved (negative = earlier)."""
    rate_kw: float
    flexible_kw: float
    """Mean reduction over the event that no driver would notice at departure."""


class CarPark(msgspec.Struct, frozen=True, kw_only=True):
    """A workplace car park behind an OpenADR VEN: several real weeks side by side."""

    id: str
    seller: str
    weeks: tuple[int, ...]
    """Each adds all sessions of the data, moved by so many whole weeks."""
    rate_kw: float
    ven_name: str


class SuggestedBid(msgspec.Struct, frozen=True, kw_only=True):
    """A bid that the scenario's numbers can stand behind."""

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
    """A need that the bids can just about meet."""

    buyer: str
    kw: float
    direction: str
    price_cap: Decimal
    baseline: str
    allowed_baselines: tuple[str, ...]


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `run` and `history` need, and what a market needs to register."""

    version: int
    seed: int
    data: str
    """Folder of the real data."""
    market: MarketDay
    sellers: tuple[Seller, ...]
    homes: tuple[Home, ...]
    chargers: tuple[Charger, ...]
    sites: tuple[CarPark, ...]
    profiles: tuple[DeviceProfile, ...]
    """Of every device that can be driven."""
    assets: tuple[Asset, ...]
    need: SuggestedNeed
    bids: tuple[SuggestedBid, ...]

    def series(self) -> tuple[str, ...]:
        """Every meter series, in a stable order."""
        meters = [home.meter for home in self.homes]
        return (*meters, *(c.id for c in self.chargers), *(s.id for s in self.sites))


VERSION = 1
STEP_DIVISORS = (10, 12, 15, 20, 30, 60)
"""Steps in market seconds that fill a minute exactly."""


def save(scenario: Scenario, path: Path) -> None:
    """Write a scenario as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(scenario), indent=2) + b"\n")


def load(path: Path) -> Scenario:
    """Read a scenario. Raises ConfigError naming the file and what is wrong."""
    try:
        scenario = msgspec.json.decode(path.read_bytes(), type=Scenario)
    except (OSError, msgspec.MsgspecError) as error:
        msg = f"{path} is no scenario: {error}; make one with `python -m firmware_sim plan`"
        raise ConfigError(msg) from error
    if scenario.version != VERSION:
        msg = f"{path} has scenario version {scenario.version}, this simulator reads {VERSION}"
        raise ConfigError(msg)
    return scenario


def step_for(speed: float, shortest_wall_s: float = 0.05) -> timedelta:
    """Shortest step that divides a minute and takes `shortest_wall_s`. Raises ConfigError."""
    for seconds in STEP_DIVISORS:
        if seconds / speed >= shortest_wall_s:
            return timedelta(seconds=seconds)
    highest = STEP_DIVISORS[-1] / shortest_wall_s
    msg = f"speed {speed:g} is too high for the simulator: use --speed {highest:g} or less"
    raise ConfigError(msg)
