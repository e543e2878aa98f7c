"""SunSpec units behind the DeviceAdapter port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from adapters.base import refuse, side_by_side
from adapters.modbus.choice import Role, control_of
from adapters.modbus.control import RestartsOn
from adapters.modbus.drive import Drive
from adapters.modbus.heartbeat import Heartbeat
from adapters.modbus.lines import Line
from adapters.modbus.link import COMMAND, LineLink, LinkError
from adapters.modbus.measure import INVERTER_MODELS, METER_MODELS, STORED, stored_kwh
from adapters.modbus.offer import ControlName
from adapters.modbus.points import read_points
from adapters.modbus.reads import ReadLimits, ReadPlanError
from adapters.modbus.silence import Silence
from adapters.modbus.sunspec import SunSpecError, Value
from adapters.modbus.unit import SunSpecUnit
from adapters.write_book import WriteBook
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import (
    Applied,
    ReadBack,
    Refused,
    Setpoint,
    SetpointOutcome,
)
from marketplace_core.errors import DeviceError, StoreError
from marketplace_core.ports import Clock, ReadingSink, TimeMap
from marketplace_core.units import Kw
from marketplace_core.verification.flags import FlagKind
from marketplace_core.verification.reading import Reading

_POWER_MODELS: dict[Role, tuple[int, ...]] = {
    "battery": INVERTER_MODELS,
    "inverter": INVERTER_MODELS,
    "meter": METER_MODELS,
}
_REGISTERS = ("TotWhImp", "TotWhExp")
"""A meter's energy: asked for with the slow things."""
_GAP_INTERVALS = 3.0
"""A sample stands for at most this many poll intervals; what is longer is a gap."""
_METER = "a meter cannot be driven"
_log = structlog.get_logger(__name__)


class ModbusEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One unit and how it is driven."""

    device_id: str
    host: str = ""
    port: int = 502
    line: Line | None = None
    """What it is connected to; None = Modbus TCP to host and port, held."""
    unit: int
    role: Role
    profile: DeviceProfile
    serial: str = ""
    """Checked before the first write on every connection; empty = any."""
    meter_sign: int = 1
    """-1 where the meter counts import as positive."""
    control: ControlName | None = None
    """How it is driven; None = as its role suggests."""
    lease_restarts_on: RestartsOn = "enable"
    negative_rates: bool = False
    """Whether its maker takes negative rates (model 124)."""
    reads: ReadLimits = ReadLimits()
    slow_s: float = 0.0
    """Market seconds between two reads of state of charge and energy; 0 = with every poll."""

    def on(self) -> Line:
        """The line it is on."""
        return self.line or Line(host=self.host, port=self.port)


class _Bound:
    """An endpoint, its unit and what the adapter last did with it."""

    def __init__(
        self, endpoint: ModbusEndpoint, link: LineLink, monotonic: Callable[[], float]
    ) -> None:
        self.endpoint = endpoint
        self.unit = SunSpecUnit(link, endpoint.unit)
        link.limit(endpoint.unit, endpoint.reads.max_registers)
        self.slow_at: datetime | None = None
        self.stored_kwh: float | None = None
        self.held: Setpoint | None = None
        self.newest: dict[str, int] = {}
        self.heard: datetime | None = None
        self.busy = asyncio.Lock()
        self.control = control_of(
            endpoint.profile, endpoint.role, endpoint.control, endpoint.lease_restarts_on,
            negative_rates=endpoint.negative_rates,
        )  # fmt: skip
        self.heartbeat: Heartbeat | None = None
        if endpoint.profile.lease is LeaseKind.HEARTBEAT:
            self.heartbeat = Heartbeat(self.unit, monotonic=monotonic)
        self.drive: Drive | None = None

    def slow_due(self, at: datetime) -> bool:
        """Whether it is time for what changes slowly."""
        pause = timedelta(seconds=self.endpoint.slow_s)
        return self.slow_at is None or at - self.slow_at >= pause


class ModbusAdapter:
    """Implements the DeviceAdapter port over SunSpec Modbus."""

    protocol = "modbus"

    def __init__(
        self,
        endpoints: Iterable[ModbusEndpoint],
        *,
        clock: Clock,
        time_map: TimeMap,
        timeout_s: float,
        writes: Path | None = None,
    ) -> None:
        """`timeout_s`: wall seconds that one request may take.

        `writes`: where the counts of devices with a budget of writes are kept.
        """
        self._clock = clock
        self._time = time_map
        self._links: dict[tuple[str, int], LineLink] = {}
        self._bound: dict[str, _Bound] = {}
        endpoints = list(endpoints)
        book = WriteBook((e.profile for e in endpoints), writes, key="modbus.writes")
        for endpoint in endpoints:
            line = endpoint.on()
            if line.key not in self._links:
                link = LineLink(line, timeout_s=timeout_s, monotonic=clock.monotonic)
                self._links[line.key] = link
            bound = _Bound(endpoint, self._links[line.key], clock.monotonic)
            if bound.control is not None:
                bound.drive = Drive(
                    endpoint.device_id, bound.unit, bound.control, serial=endpoint.serial,
                    heartbeat=bound.heartbeat, book=book, clock=clock, time_map=time_map,
                )  # fmt: skip
            self._bound[endpoint.device_id] = bound

    def profiles(self) -> Sequence[DeviceProfile]:
        """Every unit of this adapter."""
        return [bound.endpoint.profile for bound in self._bound.values()]

    def connected(self, device_id: str) -> bool:
        """Whether the unit answered within three poll intervals."""
        bound = self._bound.get(device_id)
        if bound is None or bound.heard is None:
            return False
        longest = timedelta(seconds=_GAP_INTERVALS * bound.endpoint.profile.telemetry_s)
        return self._clock.now() - bound.heard <= longest

    async def run(self, sink: ReadingSink, *, ready: Callable[[], None]) -> None:
        """Poll every unit until cancelled."""
        ready()
        try:
            async with asyncio.TaskGroup() as tasks:
                for bound in self._bound.values():
                    tasks.create_task(self._poll(bound, sink))
                    if bound.heartbeat is not None:
                        tasks.create_task(bound.heartbeat.run())
        finally:
            self.close()

    def close(self) -> None:
        """Close every connection."""
        for link in self._links.values():
            link.close()

    def issue(self, setpoints: Sequence[Setpoint]) -> AsyncIterator[list[SetpointOutcome]]:
        """Drive units side by side; yield each outcome as it is known."""
        return side_by_side(setpoints, self._apply)

    async def release(self, device_id: str, *, order_id: str, revision: int) -> SetpointOutcome:
        """Return a unit to its own behaviour, unless a newer revision or another order holds it."""
        at, bound = self._clock.now(), self._bound.get(device_id)
        if bound is None or bound.drive is None:
            reason = "no such device is bound here" if bound is None else _METER
            return Refused(setpoint_id="", device_id=device_id, at=at, reason=reason)
        held = bound.held
        if held is not None and held.order_id != order_id and held.valid_until > at:
            return Applied(setpoint_id="", device_id=device_id, at=at)  # nothing of it is in force
        if held is not None and held.order_id == order_id and held.revision > revision:
            reason = f"revision {held.revision} is in force"
            return Refused(setpoint_id="", device_id=device_id, at=at, reason=reason)
        async with bound.busy:
            outcome = await bound.drive.stop()
        if isinstance(outcome, Applied):
            bound.held = None
            if bound.heartbeat is not None:
                bound.heartbeat.drop()
        return outcome

    async def read_back(self, device_id: str) -> ReadBack:
        """Read the control registers; DeviceError when the unit cannot be asked."""
        bound = self._bound.get(device_id)
        if bound is None or bound.control is None:
            raise DeviceError("no such controllable unit", device_id=device_id, retryable=False)
        try:
            await bound.unit.inform(bound.control)
            in_force = bound.control.parse(await bound.unit.read(bound.control.model, COMMAND))
        except (LinkError, SunSpecError) as error:
            raise DeviceError(str(error), device_id=device_id, retryable=True) from error
        left_s = self._market_seconds(in_force.lease_wall_s)
        if bound.endpoint.profile.lease is not LeaseKind.REVERT_TIMER:
            left_s = None  # it is not the unit's timer that ends it
        return ReadBack(
            device_id=device_id,
            at=self._clock.now(),
            active=in_force.active,
            setpoint_kw=None if in_force.power_kw is None else Kw(in_force.power_kw),
            lease_remaining_s=left_s,
        )

    async def _apply(self, setpoint: Setpoint) -> SetpointOutcome:
        bound = self._bound.get(setpoint.device_id)
        at = self._clock.now()
        refused = refuse(setpoint, bound.endpoint.profile if bound else None, at)
        if refused is not None or bound is None:
            return refused or _refused(setpoint, at, "no such unit")
        if setpoint.revision < bound.newest.get(setpoint.order_id, 0):
            return _refused(setpoint, at, "an older revision than the unit has had")
        bound.newest[setpoint.order_id] = setpoint.revision
        if bound.drive is None:
            return _refused(setpoint, at, _METER)
        async with bound.busy:
            if bound.held is not None and bound.held.id == setpoint.id:
                renewed = await bound.drive.renew(setpoint)
                if renewed is not None:
                    return renewed
            outcome = await bound.drive.start(setpoint)
        bound.held = setpoint if isinstance(outcome, Applied) else None
        if bound.held is None and bound.heartbeat is not None:
            bound.heartbeat.drop()  # nothing is known to be held: let it fall back
        return outcome

    async def _poll(self, bound: _Bound, sink: ReadingSink) -> None:
        interval = timedelta(seconds=bound.endpoint.profile.telemetry_s)
        last: datetime | None = None
        silent = Silence()
        while True:
            at = self._clock.now()
            try:
                reading = await self._sample(bound, at, last)
            except (LinkError, SunSpecError, ReadPlanError) as error:
                _log.info("poll_failed", device=bound.endpoint.device_id, error=str(error))
                if silent.failed(at):
                    sink.noticed(
                        device_id=bound.endpoint.device_id, kind=FlagKind.TIMES_OUT,
                        since=silent.since or at, evidence=str(error),
                    )  # fmt: skip
            else:
                silent.answered()
                bound.heard = last = at
                if reading is not None:
                    await self._store(sink, reading)
            await self._clock.sleep_until(max(at + interval, self._clock.now()))

    async def _store(self, sink: ReadingSink, reading: Reading) -> None:
        try:
            await sink.store([reading])
        except StoreError as error:
            _log.error("reading_not_stored", device=reading.series, error=str(error))

    async def _sample(self, bound: _Bound, at: datetime, last: datetime | None) -> Reading | None:
        endpoint = bound.endpoint
        slow = bound.slow_due(at)
        names = ("W", *(_REGISTERS if slow and endpoint.role == "meter" else ()))
        measured = await self._measured(bound, names)
        power_kw = _power(endpoint, measured)
        model = next((model for model in STORED if model in bound.unit.addresses), None)
        if slow and endpoint.role == "battery" and model is not None:
            points = await read_points(bound.unit, model, STORED[model], endpoint.reads)
            bound.stored_kwh = stored_kwh(model, points, endpoint.profile.capacity_kwh)
        if slow:
            bound.slow_at = at
        longest = _GAP_INTERVALS * endpoint.profile.telemetry_s
        since = endpoint.profile.telemetry_s
        if last is not None:
            since = min((at - last).total_seconds(), longest)
        if power_kw is None:
            return None
        return Reading(
            series=endpoint.device_id,
            start=at - timedelta(seconds=since),
            seconds=since,
            power_kw=Kw(power_kw),
            soc_kwh=bound.stored_kwh,
            register_kwh=_register(endpoint, measured),
        )

    async def _measured(self, bound: _Bound, names: Sequence[str] = ("W",)) -> Mapping[str, Value]:
        """Points of the model that measures the unit's power."""
        if not bound.unit.addresses:
            await bound.unit.discover()
        for model in _POWER_MODELS[bound.endpoint.role]:
            if model in bound.unit.addresses:
                return await read_points(bound.unit, model, names, bound.endpoint.reads)
        raise SunSpecError(f"{bound.endpoint.device_id} has no model that measures power")

    def _market_seconds(self, wall_s: float | None) -> float | None:
        return None if wall_s is None else wall_s * self._time.speed


def _power(endpoint: ModbusEndpoint, points: Mapping[str, Value]) -> float | None:
    """Kilowatts, injection positive."""
    watts = points.get("W")
    sign = endpoint.meter_sign if endpoint.role == "meter" else 1
    return sign * watts / 1000.0 if isinstance(watts, int | float) else None


def _register(endpoint: ModbusEndpoint, points: Mapping[str, Value]) -> float | None:
    """A meter's net energy in kWh, export minus import; None where it does not tell both.

    The two registers are named by their direction, whatever the sign of the power.
    """
    imported, exported = points.get("TotWhImp"), points.get("TotWhExp")
    if endpoint.role != "meter":
        return None
    if not isinstance(imported, int | float) or not isinstance(exported, int | float):
        return None
    return (exported - imported) / 1000.0


def _refused(setpoint: Setpoint, at: datetime, reason: str) -> Refused:
    return Refused(setpoint_id=setpoint.id, device_id=setpoint.device_id, at=at, reason=reason)
