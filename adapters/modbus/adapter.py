"""SunSpec units behind the DeviceAdapter port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec
import structlog

from adapters.base import refuse
from adapters.modbus.choice import Role, control_of
from adapters.modbus.control import Control, InForce, RestartsOn
from adapters.modbus.heartbeat import Heartbeat
from adapters.modbus.link import COMMAND, LinkError, ModbusLink
from adapters.modbus.measure import INVERTER_MODELS, METER_MODELS, STORED, stored_kwh
from adapters.modbus.offer import ControlName
from adapters.modbus.silence import Silence
from adapters.modbus.sunspec import SunSpecError, Value
from adapters.modbus.unit import MaybeWritten, SunSpecUnit
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import (
    Applied,
    ReadBack,
    Refused,
    Setpoint,
    SetpointOutcome,
    Unconfirmed,
    Unreachable,
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
_READ_BACK_KW = 0.05
"""Registers are scaled integers: a read-back this near is the setpoint."""
_TIMER_S = 2.0
"""Wall seconds: a revert timer of less may read 0 while it runs, because it counts whole ones."""
_GAP_INTERVALS = 3.0
"""A sample stands for at most this many poll intervals; what is longer is a gap."""
_log = structlog.get_logger(__name__)


class ModbusEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One unit and how it is driven."""

    device_id: str
    host: str
    port: int
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


class _Bound:
    """An endpoint, its unit and what the adapter last did with it."""

    def __init__(
        self, endpoint: ModbusEndpoint, link: ModbusLink, monotonic: Callable[[], float]
    ) -> None:
        self.endpoint = endpoint
        self.unit = SunSpecUnit(link, endpoint.unit)
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


class ModbusAdapter:
    """Implements the DeviceAdapter port over SunSpec Modbus TCP."""

    protocol = "modbus"

    def __init__(
        self,
        endpoints: Iterable[ModbusEndpoint],
        *,
        clock: Clock,
        time_map: TimeMap,
        timeout_s: float,
    ) -> None:
        """`timeout_s`: wall seconds that one request may take."""
        self._clock = clock
        self._time = time_map
        self._links: dict[tuple[str, int], ModbusLink] = {}
        self._bound: dict[str, _Bound] = {}
        for endpoint in endpoints:
            key = (endpoint.host, endpoint.port)
            if key not in self._links:
                self._links[key] = ModbusLink(*key, timeout_s=timeout_s, monotonic=clock.monotonic)
            self._bound[endpoint.device_id] = _Bound(endpoint, self._links[key], clock.monotonic)

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

    async def issue(self, setpoints: Sequence[Setpoint]) -> AsyncIterator[list[SetpointOutcome]]:
        """Drive units side by side; yield each outcome as it is known."""
        done: asyncio.Queue[SetpointOutcome] = asyncio.Queue()

        async def one(setpoint: Setpoint) -> None:
            done.put_nowait(await self._apply(setpoint))

        async with asyncio.TaskGroup() as tasks:
            for setpoint in setpoints:
                tasks.create_task(one(setpoint))
            for _ in setpoints:
                yield [await done.get()]

    async def release(self, device_id: str, *, order_id: str, revision: int) -> SetpointOutcome:
        """Return a unit to its own behaviour, unless a newer revision or another order holds it."""
        at, bound = self._clock.now(), self._bound.get(device_id)
        if bound is None:
            reason = "no such device is bound here"
            return Refused(setpoint_id="", device_id=device_id, at=at, reason=reason)
        held = bound.held
        if held is not None and held.order_id != order_id and held.valid_until > at:
            return Applied(setpoint_id="", device_id=device_id, at=at)  # nothing of it is in force
        if held is not None and held.order_id == order_id and held.revision > revision:
            reason = f"revision {held.revision} is in force"
            return Refused(setpoint_id="", device_id=device_id, at=at, reason=reason)
        async with bound.busy:
            outcome = await self._write(
                bound, "", lambda c: c.stop(), lambda in_force: not in_force.active
            )
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
        return ReadBack(
            device_id=device_id,
            at=self._clock.now(),
            active=in_force.active,
            setpoint_kw=None if in_force.power_kw is None else Kw(in_force.power_kw),
            lease_remaining_s=self._market_seconds(in_force.lease_wall_s),
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
        lease = self._clock.wall_seconds(setpoint.lease_s)
        async with bound.busy:
            if bound.held is not None and bound.held.id == setpoint.id:
                outcome = await self._set(bound, setpoint, lambda c: c.refresh(
                    setpoint.power_kw, lease))  # fmt: skip
                if isinstance(outcome, Applied):
                    return outcome
            outcome = await self._set(bound, setpoint, lambda c: c.start(setpoint.power_kw, lease))
        bound.held = setpoint if isinstance(outcome, Applied) else None
        if bound.held is None and bound.heartbeat is not None:
            bound.heartbeat.drop()  # nothing is known to be held: let it fall back
        return outcome

    async def _set(
        self, bound: _Bound, setpoint: Setpoint, points: Callable[[Control], dict[str, float]]
    ) -> SetpointOutcome:
        lease_s = self._clock.wall_seconds(setpoint.lease_s)

        def matches(in_force: InForce) -> bool:
            power = in_force.power_kw
            near = power is not None and abs(power - setpoint.power_kw) <= max(
                _READ_BACK_KW, in_force.step_kw
            )
            stands_still = in_force.lease_wall_s == 0 and lease_s >= _TIMER_S
            return in_force.active and near and not stands_still

        return await self._write(bound, setpoint.id, points, matches, beat_s=lease_s)

    async def _write(
        self,
        bound: _Bound,
        setpoint_id: str,
        points: Callable[[Control], dict[str, float]],
        matches: Callable[[InForce], bool],
        *,
        beat_s: float = 0.0,
    ) -> SetpointOutcome:
        """Identity, heartbeat, writes in order, read back: told apart by how far it came."""
        device_id, control = bound.endpoint.device_id, bound.control
        at = self._clock.now()
        if control is None:
            reason = "a meter cannot be driven"
            return Refused(setpoint_id=setpoint_id, device_id=device_id, at=at, reason=reason)
        try:
            await bound.unit.verify(bound.endpoint.serial)
            await bound.unit.inform(control)
            if bound.heartbeat is not None and beat_s:
                await bound.heartbeat.hold(beat_s)
            await bound.unit.write(control.model, points(control))
            in_force = await self._confirm(bound, control)
        except SunSpecError as error:
            return Refused(setpoint_id=setpoint_id, device_id=device_id, at=at, reason=str(error))
        except LinkError as error:
            return _failed(error, setpoint_id, device_id, at)
        if not matches(in_force):
            if in_force.active and in_force.lease_wall_s == 0:
                with suppress(LinkError, SunSpecError):  # nothing else would ever end it
                    await bound.unit.write(control.model, control.stop())
            return Refused(
                setpoint_id=setpoint_id, device_id=device_id, at=at,
                reason="it reads back something else", evidence=repr(in_force),
            )  # fmt: skip
        return Applied(
            setpoint_id=setpoint_id, device_id=device_id, at=self._clock.now(),
            read_back_kw=None if in_force.power_kw is None else Kw(in_force.power_kw),
            lease_remaining_s=self._market_seconds(in_force.lease_wall_s),
        )  # fmt: skip

    async def _confirm(self, bound: _Bound, control: Control) -> InForce:
        """Read the control registers after a write; MaybeWritten when they stay unread."""
        try:
            return control.parse(await bound.unit.read(control.model, COMMAND))
        except LinkError as error:
            raise MaybeWritten(f"written, not read back: {error}") from error

    async def _poll(self, bound: _Bound, sink: ReadingSink) -> None:
        interval = timedelta(seconds=bound.endpoint.profile.telemetry_s)
        last: datetime | None = None
        silent = Silence()
        while True:
            at = self._clock.now()
            try:
                reading = await self._sample(bound, at, last)
            except (LinkError, SunSpecError) as error:
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
        measured = await self._measured(bound)
        power_kw, stored = _power(endpoint, measured), None
        model = next((model for model in STORED if model in bound.unit.addresses), None)
        if endpoint.role == "battery" and model is not None:
            points = await bound.unit.read(model)
            stored = stored_kwh(model, points, endpoint.profile.capacity_kwh)
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
            soc_kwh=stored,
            register_kwh=_register(endpoint, measured),
        )

    async def _measured(self, bound: _Bound) -> Mapping[str, Value]:
        """Points of the model that measures the unit's power."""
        if not bound.unit.addresses:
            await bound.unit.discover()
        for model in _POWER_MODELS[bound.endpoint.role]:
            if model in bound.unit.addresses:
                return await bound.unit.read(model)
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


def _failed(error: LinkError, setpoint_id: str, device_id: str, at: datetime) -> SetpointOutcome:
    """A unit's own exception is a refusal; silence after a write is Unconfirmed."""
    kind: type[Refused | Unconfirmed | Unreachable] = Unreachable
    if error.exception_code is not None:
        kind = Refused
    elif isinstance(error, MaybeWritten):
        kind = Unconfirmed
    return kind(setpoint_id=setpoint_id, device_id=device_id, at=at, reason=str(error))
