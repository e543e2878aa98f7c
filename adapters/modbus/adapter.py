"""Modbus units behind the DeviceAdapter port: SunSpec, and others by a map of their registers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from adapters.base import refuse, side_by_side
from adapters.modbus.batch import Batch
from adapters.modbus.choice import Role, control_of
from adapters.modbus.control import Control, RestartsOn
from adapters.modbus.drive import Drive
from adapters.modbus.errors import PointError
from adapters.modbus.heartbeat import Heartbeat
from adapters.modbus.lines import Line
from adapters.modbus.link import COMMAND, LineLink, LinkError
from adapters.modbus.measure import NUMBER, stored_kwh
from adapters.modbus.offer import ControlName
from adapters.modbus.reads import ReadLimits, ReadPlanError
from adapters.modbus.registers.control import RegisterControl, heartbeat_of
from adapters.modbus.registers.definition import RegisterMap
from adapters.modbus.registers.unit import RegisterUnit
from adapters.modbus.sample import Sampler
from adapters.modbus.silence import Silence
from adapters.modbus.sunspec import Value
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

_GAP_INTERVALS = 3.0
"""A sample stands for at most this many poll intervals; what is longer is a gap."""
_METER = "a meter cannot be driven"
_NO_CONTROL = "its device profile has no control: it is only read"
_log = structlog.get_logger(__name__)


class ModbusEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One unit and how it is driven."""

    device_id: str
    device: RegisterMap | None = None
    """Its registers where it is not SunSpec; then its own controls are meant by `control_name`."""
    control_name: str | None = None
    phases: int = 3
    """Over how many a control in amperes is spread."""
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
    """-1 where the meter counts import as positive; of a register map, where it is mounted the
    other way round."""
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
        self.unit: SunSpecUnit | RegisterUnit
        link.limit(endpoint.unit, endpoint.reads.max_registers)
        self.sign = endpoint.meter_sign if endpoint.role == "meter" else 1
        """Of its power, to make injection positive."""
        self._slow = timedelta(seconds=endpoint.slow_s)
        self.longest = timedelta(seconds=_GAP_INTERVALS * endpoint.profile.telemetry_s)
        """What a sample stands for at most."""
        self.slow_at: datetime | None = None
        self.stored_kwh: float | None = None
        self.held: Setpoint | None = None
        self.newest: dict[str, int] = {}
        self.heard: datetime | None = None
        self.busy = asyncio.Lock()
        self.control: Control | None
        self.heartbeat: Heartbeat | None = None
        self.drive: Drive | None = None
        self.mapped: RegisterUnit | None = None
        """The unit, where it is read by a map of its registers."""
        if endpoint.device is not None:
            self.mapped, control = _mapped(endpoint, endpoint.device, link, monotonic)
            self.unit, self.control = self.mapped, control
            if endpoint.profile.lease is LeaseKind.HEARTBEAT and control is not None:
                self.heartbeat = heartbeat_of(self.mapped, control, monotonic=monotonic)
            return
        self.unit = self.sunspec = SunSpecUnit(link, endpoint.unit)
        self.sampler = Sampler(self.sunspec, endpoint.role, endpoint.reads)
        self.control = control_of(
            endpoint.profile, endpoint.role, endpoint.control, endpoint.lease_restarts_on,
            negative_rates=endpoint.negative_rates,
        )  # fmt: skip
        if endpoint.profile.lease is LeaseKind.HEARTBEAT:
            self.heartbeat = Heartbeat(self.unit, monotonic=monotonic)

    @property
    def undriven(self) -> str:
        """Why it has no control."""
        return _METER if self.endpoint.role == "meter" else _NO_CONTROL

    def slow_due(self, at: datetime) -> bool:
        """Whether it is time for what changes slowly."""
        return self.slow_at is None or at - self.slow_at >= self._slow


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
        endpoints, batch = list(endpoints), Batch()
        book = WriteBook((e.profile for e in endpoints), writes, key="modbus.writes")
        for endpoint in endpoints:
            line = endpoint.on()
            if line.key not in self._links:
                self._links[line.key] = LineLink(
                    line, timeout_s=timeout_s, monotonic=clock.monotonic, batch=batch
                )
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
            reason = "no such device is bound here" if bound is None else bound.undriven
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
        except (LinkError, PointError) as error:
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
            return _refused(setpoint, at, bound.undriven)
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
        at = self._clock.now()
        while True:
            due = at + interval
            try:
                reading = await self._sample(bound, at, last)
            except (LinkError, PointError, ReadPlanError) as error:
                _log.info("poll_failed", device=bound.endpoint.device_id, error=str(error))
                if silent.failed(at):
                    sink.noticed(
                        device_id=bound.endpoint.device_id, kind=FlagKind.TIMES_OUT,
                        since=silent.since or at, evidence=str(error),
                    )  # fmt: skip
                await asyncio.sleep(0)  # it may have failed without waiting for anything
            else:
                silent.answered()
                bound.heard = last = at
                if reading is not None:
                    try:
                        await sink.store([reading])
                    except StoreError as error:
                        _log.error("reading_not_stored", device=reading.series, error=str(error))
            at = self._clock.now()
            if due > at:
                await self._clock.sleep_until(due)
                at = self._clock.now()

    async def _sample(self, bound: _Bound, at: datetime, last: datetime | None) -> Reading | None:
        endpoint, slow = bound.endpoint, bound.slow_due(at)
        if bound.mapped is not None:
            told = await bound.mapped.measure(slow=slow, capacity_kwh=endpoint.profile.capacity_kwh)
            power_kw, register_kwh = told.power_kw, told.register_kwh
            bound.stored_kwh = told.stored_kwh if slow else bound.stored_kwh
        else:
            points = await self._points(bound, slow=slow)
            watts = points["W"]
            power_kw = bound.sign * watts / 1000.0 if isinstance(watts, NUMBER) else None
            register_kwh = _register(points) if endpoint.role == "meter" else None
        if slow:
            bound.slow_at = at
        if power_kw is None:
            return None
        if last is None:
            start = at - timedelta(seconds=endpoint.profile.telemetry_s)
        else:
            start = max(last, at - bound.longest)
        return Reading(
            series=endpoint.device_id,
            start=start,
            seconds=(at - start).total_seconds(),
            power_kw=Kw(power_kw),
            soc_kwh=bound.stored_kwh,
            register_kwh=register_kwh,
        )

    async def _points(self, bound: _Bound, *, slow: bool) -> Mapping[str, Value]:
        """What a SunSpec unit is asked for with this poll; takes in what a storage holds."""
        reads = bound.sampler.planned(slow=slow)
        if reads is None:
            reads = await bound.sampler.plan(slow=slow)
        points = await reads.read(bound.sunspec)
        if slow and bound.sampler.stored is not None:
            capacity_kwh = bound.endpoint.profile.capacity_kwh
            bound.stored_kwh = stored_kwh(bound.sampler.stored, points, capacity_kwh)
        return points

    def _market_seconds(self, wall_s: float | None) -> float | None:
        return None if wall_s is None else wall_s * self._time.speed


def _mapped(
    endpoint: ModbusEndpoint, device: RegisterMap, link: LineLink, monotonic: Callable[[], float]
) -> tuple[RegisterUnit, RegisterControl | None]:
    """A unit with a register map, and its control where it has one."""
    chosen = device.control(endpoint.control_name)
    unit = RegisterUnit(
        link, endpoint.unit, device, limits=endpoint.reads, monotonic=monotonic, control=chosen,
        sign=endpoint.meter_sign,
    )  # fmt: skip
    if chosen is None:
        return unit, None
    return unit, RegisterControl(device, chosen, phases=endpoint.phases)


def _register(points: Mapping[str, Value]) -> float | None:
    """A meter's net energy in kWh, export minus import; None where it does not tell both.

    The two registers are named by their direction, whatever the sign of the power.
    """
    imported, exported = points.get("TotWhImp"), points.get("TotWhExp")
    if not isinstance(imported, NUMBER) or not isinstance(exported, NUMBER):
        return None
    return (exported - imported) / 1000.0


def _refused(setpoint: Setpoint, at: datetime, reason: str) -> Refused:
    return Refused(setpoint_id=setpoint.id, device_id=setpoint.device_id, at=at, reason=reason)
