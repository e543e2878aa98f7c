"""All devices of a scenario together: in memory, one step at a time, no sockets and no clock.

The same plant runs behind real servers (`host.py`), behind a pipe (`lockstep.py`) and alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from firmware_sim.car_parks import site_stays
from firmware_sim.dataset import HOUR, DataSet, HomeHours, Session
from firmware_sim.devices import battery, charger, fleet, inverter, meter, site
from firmware_sim.faults import acted_kw, by_device
from firmware_sim.randomness import stream
from firmware_sim.scenario import Home, MarketDay, Scenario
from firmware_sim.station_choice import station_stays
from firmware_sim.world import HomeSecrets, Station, World
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

MINUTE = timedelta(minutes=1)
_ACCURACY = 0.005
"""Standard deviation of a battery's power control over a minute, as a share of its rating."""
_METER_KWH = 5000.0
"""What a meter's registers show when the simulation starts: it is not new."""
Commands = Mapping[str, float | None]


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What one device did in one step."""

    device: str
    mean_kw: float
    """Mean power over the step, injection positive."""
    power_kw: float
    """Power at the end of the step."""
    fallback: bool = True
    """Nobody commands it."""
    available: bool = True
    """Whether the device says that it can be driven."""
    soc_kwh: float | None = None
    """Usable energy in a battery."""
    exported_kwh: float = 0.0
    imported_kwh: float | None = None
    """A meter's registers; None for a device that is no meter."""
    unserved_kwh: float = 0.0
    """Energy that cars which left went without."""
    wanted_kwh: float | None = None
    """Energy that a plugged-in car still wants."""
    leaves: datetime | None = None
    """When that car leaves."""

    @property
    def register_kwh(self) -> float | None:
        """A meter's net energy, export minus import."""
        return None if self.imported_kwh is None else self.exported_kwh - self.imported_kwh


class _HomePlant:
    """The three devices of one home."""

    def __init__(
        self, home: Home, secrets: HomeSecrets, data: HomeHours, market: MarketDay, seed: int
    ) -> None:
        at = market.sim_start
        self._home = home
        self._data = data
        minutes = (market.sim_end - at) // MINUTE
        spread = _ACCURACY * home.battery_spec.power_kw
        # One draw for each minute: the length of a step changes nothing.
        self._errors: list[float] = (
            stream(seed, home.battery).normal(0.0, spread, max(1, minutes)).tolist()
        )
        self._start = at
        self._battery = battery.BatteryState(at, secrets.stored_kwh)
        self._inverter = inverter.InverterState(at)
        self._pv_spec = inverter.InverterSpec(rated_kw=home.rated_pv_kw)
        self._meter = meter.MeterState(at, _METER_KWH, _METER_KWH)
        self._hour = (at, at)
        self._now = (0.0, 0.0)

    def still(self) -> list[Moment]:
        load, sun = self._weather(self._battery.at)
        pv = min(sun, self._home.rated_pv_kw)
        net = pv + self._battery.power_kw - load
        usable = self._home.battery_spec.usable_kwh(self._battery.stored_kwh)
        battery_kw = self._battery.power_kw
        return [
            Moment(
                device=self._home.battery, mean_kw=battery_kw, power_kw=battery_kw, soc_kwh=usable
            ),
            Moment(device=self._home.inverter, mean_kw=pv, power_kw=pv),
            Moment(
                device=self._home.meter, mean_kw=net, power_kw=net,
                exported_kwh=self._meter.exported_kwh, imported_kwh=self._meter.imported_kwh,
            ),
        ]  # fmt: skip

    def step(self, time: datetime, commands: Commands) -> list[Moment]:
        home, spec = self._home, self._home.battery_spec
        load, sun = self._weather(self._battery.at)
        asked = battery.BatteryInputs(commands.get(home.battery), self._error())
        self._battery, stored = battery.update(spec, self._battery, time, asked)
        limit = inverter.InverterInputs(sun, commands.get(home.inverter))
        self._inverter, pv = inverter.update(self._pv_spec, self._inverter, time, limit)
        flows = meter.MeterInputs(load, pv.power_kw, stored.mean_kw)
        self._meter, net = meter.update(self._meter, time, flows)
        return [
            Moment(
                device=home.battery, mean_kw=stored.mean_kw, power_kw=stored.power_kw,
                fallback=stored.fallback, soc_kwh=spec.usable_kwh(stored.stored_kwh),
            ),
            Moment(
                device=home.inverter, mean_kw=pv.power_kw, power_kw=pv.power_kw,
                fallback=pv.fallback, exported_kwh=self._inverter.generated_kwh,
            ),
            Moment(
                device=home.meter, mean_kw=net.power_kw, power_kw=net.power_kw,
                exported_kwh=self._meter.exported_kwh, imported_kwh=self._meter.imported_kwh,
            ),
        ]  # fmt: skip

    def _weather(self, at: datetime) -> tuple[float, float]:
        """Load and sun of the hour, looked up once an hour."""
        if not self._hour[0] <= at < self._hour[1]:
            self._now = self._data.at(at)
            start = at.replace(minute=0, second=0, microsecond=0)
            self._hour = (start, start + HOUR)
        return self._now

    def _error(self) -> float:
        """How far the power control misses its target in this minute."""
        minute = (self._battery.at - self._start) // MINUTE
        return self._errors[minute % len(self._errors)]


class _ChargerPlant:
    def __init__(self, device: str, spec: charger.ChargerSpec, at: datetime) -> None:
        self._device = device
        self._spec = spec
        self._state = charger.started(spec, at)

    def still(self) -> list[Moment]:
        power = self._state.power_kw
        return [self._moment(charger.outputs(self._spec, self._state, power, None))]

    def step(self, time: datetime, commands: Commands) -> list[Moment]:
        asked = charger.ChargerInputs(commands.get(self._device))
        self._state, did = charger.update(self._spec, self._state, time, asked)
        return [self._moment(did)]

    def _moment(self, did: charger.ChargerOutputs) -> Moment:
        return Moment(
            device=self._device, mean_kw=did.mean_kw, power_kw=did.power_kw,
            fallback=did.fallback, available=did.available, unserved_kwh=did.unserved_kwh,
            wanted_kwh=did.wanted_kwh, leaves=did.leaves,
        )  # fmt: skip


class _FleetPlant:
    def __init__(self, device: str, spec: fleet.FleetSpec, at: datetime) -> None:
        self._device = device
        self._spec = spec
        self._state = fleet.started(spec, at)

    def still(self) -> list[Moment]:
        return [self._moment(fleet.shown(self._spec, self._state))]

    def step(self, time: datetime, commands: Commands) -> list[Moment]:
        asked = commands.get(self._device)
        self._state, did = fleet.update(self._spec, self._state, time, asked)
        return [self._moment(did)]

    def _moment(self, did: fleet.FleetOutputs) -> Moment:
        return Moment(
            device=self._device, mean_kw=did.mean_kw, power_kw=did.power_kw,
            fallback=did.fallback, available=did.available, unserved_kwh=did.unserved_kwh,
        )  # fmt: skip


class _SitePlant:
    def __init__(self, device: str, spec: site.SiteSpec, at: datetime) -> None:
        self._device = device
        self._spec = spec
        self._state = site.started(spec, at)

    def still(self) -> list[Moment]:
        power = self._state.power_kw
        return [Moment(device=self._device, mean_kw=power, power_kw=power)]

    def step(self, time: datetime, commands: Commands) -> list[Moment]:
        asked = site.SiteInputs(commands.get(self._device))
        self._state, did = site.update(self._spec, self._state, time, asked)
        return [
            Moment(
                device=self._device, mean_kw=did.mean_kw, power_kw=did.power_kw,
                fallback=did.fallback, unserved_kwh=did.unserved_kwh,
            )
        ]  # fmt: skip


_Part = _HomePlant | _ChargerPlant | _FleetPlant | _SitePlant


class Plant:
    """Every device of a scenario, from the start of the simulation on."""

    def __init__(self, scenario: Scenario, world: World, data: DataSet) -> None:
        """Raises ConfigError or RecordError when the data do not carry the scenario."""
        at = scenario.market.sim_start
        self.at = at
        self._faults = by_device(world.faults)
        self._parts: list[_Part] = _homes(scenario, world, data)
        sessions = data.sessions if len(scenario.homes) < len(scenario.series()) else ()
        market = _today(scenario.market)
        for one in scenario.chargers:
            spec = _station(market, world.stations[one.id], sessions, one.rate_kw)
            self._parts.append(_ChargerPlant(one.id, spec, at))
        for backend in scenario.fleets:
            own = world.fleets[backend.id]
            specs = tuple(_station(market, each, sessions, backend.rate_kw) for each in own)
            self._parts.append(_FleetPlant(backend.id, fleet.FleetSpec(specs), at))
        for park in scenario.sites:
            cars = site_stays(market, world.sites[park.id], sessions, at)
            self._parts.append(_SitePlant(park.id, site.SiteSpec.of(cars, park.rate_kw), at))

    def still(self) -> list[Moment]:
        """What every device shows before its first step."""
        return [moment for part in self._parts for moment in part.still()]

    def step(self, time: datetime, commands: Commands) -> list[Moment]:
        """Advance every device to `time` under the commands in force (None = fallback).

        A device with a fault does of its command what the fault lets through.
        """
        acted = commands
        if self._faults:
            acted = {
                device: acted_kw(self._faults.get(device, ()), self.at, kw)
                for device, kw in commands.items()
            }
        moments = [moment for part in self._parts for moment in part.step(time, acted)]
        self.at = time
        return moments


def _homes(scenario: Scenario, world: World, data: DataSet) -> list[_Part]:
    hours = data.homes if scenario.homes else {}
    return [
        _HomePlant(home, own, hours[own.data_home], scenario.market, world.seed)
        for home, own in ((home, world.homes[home.id]) for home in scenario.homes)
    ]


def _today(market: MarketDay) -> MarketDay:
    """The day without its history: cars that left before the start do nothing."""
    return msgspec.structs.replace(market, history_start=market.sim_start)


def _station(
    market: MarketDay, station: Station, sessions: Sequence[Session], rate_kw: float
) -> charger.ChargerSpec:
    return charger.spec_of(station_stays(market, station, sessions), rate_kw)


class Minutes:
    """Sums steps into readings of a minute each."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._energy: dict[str, float] = {}
        self._sequence = 0

    def add(self, since: datetime, time: datetime, moments: list[Moment]) -> list[Reading]:
        """Take one step's moments; at the end of a minute return one reading per device."""
        seconds = (time - since).total_seconds()
        for moment in moments:
            known = self._energy.get(moment.device, 0.0)
            self._energy[moment.device] = known + moment.mean_kw * seconds
        if time - self._start < MINUTE:
            return []
        readings = [self._reading(moment, time) for moment in moments]
        self._energy.clear()
        self._start = time
        self._sequence += 1
        return readings

    def _reading(self, moment: Moment, time: datetime) -> Reading:
        span = (time - self._start).total_seconds()
        return Reading(
            series=moment.device,
            start=self._start,
            seconds=span,
            power_kw=Kw(self._energy[moment.device] / span),
            sequence=self._sequence,
            soc_kwh=moment.soc_kwh,
            available=moment.available,
            sample_kw=Kw(moment.power_kw),
            register_kwh=moment.register_kwh,
            wanted_kwh=moment.wanted_kwh,
            leaves_at=moment.leaves,
        )
