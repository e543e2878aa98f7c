"""All devices of a scenario together: in memory, one step at a time, no sockets and no clock.

The same plant runs behind real servers (`host.py`) and in virtual time in tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from firmware_sim.dataset import HomeHours, read_homes, read_sessions
from firmware_sim.devices import battery, charger, inverter, meter, site
from firmware_sim.planning import charger_stays, randomness, site_stays
from firmware_sim.scenario import Home, Scenario
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

MINUTE = timedelta(minutes=1)
_ACCURACY = 0.005
"""Standard deviation of a battery's power control, as a share of its rating."""


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
    imported_kwh: float = 0.0
    """A meter's registers."""
    unserved_kwh: float = 0.0
    """Energy that cars which left went without."""


class _HomePlant:
    """The three devices of one home."""

    def __init__(self, home: Home, data: HomeHours, at: datetime, seed: int) -> None:
        self._home = home
        self._data = data
        self._noise = randomness(seed, home.battery)
        self._battery = battery.BatteryState(at, home.stored_kwh)
        self._inverter = inverter.InverterState(at)
        self._meter = meter.MeterState(at)

    def still(self) -> list[Moment]:
        load, sun = self._data.at(self._battery.at)
        pv = min(sun, self._home.rated_pv_kw)
        net = pv + self._battery.power_kw - load
        usable = self._home.battery_spec.usable_kwh(self._battery.stored_kwh)
        battery_kw = self._battery.power_kw
        return [
            Moment(
                device=self._home.battery, mean_kw=battery_kw, power_kw=battery_kw, soc_kwh=usable
            ),
            Moment(device=self._home.inverter, mean_kw=pv, power_kw=pv),
            Moment(device=self._home.meter, mean_kw=net, power_kw=net),
        ]

    def step(self, time: datetime, commands: Mapping[str, float | None]) -> list[Moment]:
        home, spec = self._home, self._home.battery_spec
        load, sun = self._data.at(self._battery.at)
        error = float(self._noise.normal(0.0, _ACCURACY * spec.power_kw))
        asked = battery.BatteryInputs(commands.get(home.battery), error)
        self._battery, stored = battery.update(spec, self._battery, time, asked)
        limit = inverter.InverterInputs(sun, commands.get(home.inverter))
        pv_spec = inverter.InverterSpec(rated_kw=home.rated_pv_kw)
        self._inverter, pv = inverter.update(pv_spec, self._inverter, time, limit)
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


class _ChargerPlant:
    def __init__(self, device: str, spec: charger.ChargerSpec, at: datetime) -> None:
        self._device = device
        self._spec = spec
        self._state = charger.started(spec, at)

    def still(self) -> list[Moment]:
        power, at = self._state.power_kw, self._state.at
        plugged = any(stay.plugged(at) for stay in self._spec.stays)
        return [Moment(device=self._device, mean_kw=power, power_kw=power, available=plugged)]

    def step(self, time: datetime, commands: Mapping[str, float | None]) -> list[Moment]:
        asked = charger.ChargerInputs(commands.get(self._device))
        self._state, did = charger.update(self._spec, self._state, time, asked)
        return [
            Moment(
                device=self._device, mean_kw=did.mean_kw, power_kw=did.power_kw,
                fallback=did.fallback, available=did.plugged, unserved_kwh=did.unserved_kwh,
            )
        ]  # fmt: skip


class _SitePlant:
    def __init__(self, device: str, spec: site.SiteSpec, at: datetime) -> None:
        self._device = device
        self._spec = spec
        self._state = site.started(spec, at)

    def still(self) -> list[Moment]:
        power = self._state.power_kw
        return [Moment(device=self._device, mean_kw=power, power_kw=power)]

    def step(self, time: datetime, commands: Mapping[str, float | None]) -> list[Moment]:
        asked = site.SiteInputs(commands.get(self._device))
        self._state, did = site.update(self._spec, self._state, time, asked)
        return [
            Moment(
                device=self._device, mean_kw=did.mean_kw, power_kw=did.power_kw,
                fallback=did.fallback, unserved_kwh=did.unserved_kwh,
            )
        ]  # fmt: skip


class Plant:
    """Every device of a scenario, from the start of the simulation on."""

    def __init__(self, scenario: Scenario, data: Path) -> None:
        """Raises ConfigError or RecordError when the data do not carry the scenario."""
        market, at = scenario.market, scenario.market.sim_start
        homes = read_homes(data) if scenario.homes else {}
        sessions = read_sessions(data)
        self.at = at
        self._parts: list[_HomePlant | _ChargerPlant | _SitePlant] = [
            _HomePlant(home, homes[home.data_home], at, scenario.seed) for home in scenario.homes
        ]
        for one in scenario.chargers:
            stays = charger_stays(market, one, sessions)
            spec = charger.ChargerSpec(stays=stays, rate_kw=one.rate_kw)
            self._parts.append(_ChargerPlant(one.id, spec, at))
        for park in scenario.sites:
            cars = site_stays(market, park, sessions)
            near = tuple(car for car in cars if car.departure > at)
            spec_park = site.SiteSpec(stays=near, rate_kw=park.rate_kw)
            self._parts.append(_SitePlant(park.id, spec_park, at))

    def still(self) -> list[Moment]:
        """What every device shows before its first step."""
        return [moment for part in self._parts for moment in part.still()]

    def step(self, time: datetime, commands: Mapping[str, float | None]) -> list[Moment]:
        """Advance every device to `time` under the commands in force (None = fallback)."""
        moments = [moment for part in self._parts for moment in part.step(time, commands)]
        self.at = time
        return moments


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
        )
