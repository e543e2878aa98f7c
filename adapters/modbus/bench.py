"""A SunSpec unit on the bench: what a safe test asks of it, in its own points and registers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from adapters.commissioning import (
    RESTARTS,
    Nameplate,
    Offered,
    Rating,
    Restart,
    Sample,
    Standing,
    Write,
)
from adapters.modbus.choice import Role, control_of
from adapters.modbus.control import Control
from adapters.modbus.heartbeat import WRAP, Beaten
from adapters.modbus.lines import Line
from adapters.modbus.link import COMMAND, LineLink
from adapters.modbus.measure import INVERTER_MODELS
from adapters.modbus.offer import HEARTBEAT_MODEL, ControlName
from adapters.modbus.points import read_points
from adapters.modbus.reads import ReadLimits
from adapters.modbus.sunspec import SunSpecError, Value, load_model, meaning
from adapters.modbus.survey import Report, survey
from adapters.modbus.unit import SunSpecUnit
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.units import Kw

_COMMON: Final = 1
_SOC: Final = ((713, "SoC"), (802, "SoC"), (124, "ChaState"))
_INJECTS: Final = ((702, "WMaxRtg"), (702, "WMax"), (120, "WRtg"), (121, "WMax"), (124, "WChaMax"))
_ABSORBS: Final = ((702, "WChaRteMaxRtg"), (702, "WChaRteMax"), (124, "WChaMax"))
_STATES: Final = (
    (701, "InvSt"), (103, "St"), (102, "St"), (101, "St"), (113, "St"), (112, "St"), (111, "St"),
    (802, "State"), (802, "LocRemCtl"), (715, "LocRemCtl"),
)  # fmt: skip
_CANNOT: Final = frozenset({
    "OFF", "SLEEPING", "STARTING", "SHUTTING_DOWN", "FAULT", "DISCONNECTED", "INITIALIZING",
    "SOC PROTECTION", "SUSPENDING", "LOCAL",
})  # fmt: skip
"""Words of those states in which a unit does not follow a command."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a unit is, and how it is spoken to."""

    line: Line
    unit: int
    serial: str = ""
    """What its serial number has to be; empty = whoever answers first."""
    timeout_s: float = 3.0
    reads: ReadLimits = ReadLimits()
    negative_rates: bool = False
    """Its maker takes negative rates (model 124): it can be forced."""


class SunSpecBench:
    """Implements the Bench port."""

    def __init__(self, place: Place, *, monotonic: Callable[[], float]) -> None:
        self._place = place
        self._monotonic = monotonic
        self._serial = place.serial
        self._controls: dict[Restart, Control] = {}
        self._beats: int | None = None
        self._link = self._new_link()
        self._unit = SunSpecUnit(self._link, place.unit)
        self.offered = Offered("", "setpoint", timer=False)

    async def meet(self) -> Report:
        """Find out what it is and offers; from then on it is written to under this identity.

        A problem stands in the report. LinkError when nothing answers there.
        """
        found = await survey(self._link, self._place.unit)
        if found.identity is not None:
            self._serial = self._serial or found.identity.serial
            await self._unit.verify(self._serial)
        return found

    async def take(self, control: ControlName, found: Report, rating: Rating) -> None:
        """Choose the control that is tested; SunSpecError when the unit does not offer it."""
        offer = next((one for one in found.controls if one.control == control), None)
        if offer is None:
            listed = ", ".join(one.control for one in found.controls) or "none"
            raise SunSpecError(f"it does not offer {control}; it offers {listed}")
        storage = found.role == "battery"
        forced = control == "storage_124" and self._place.negative_rates
        kind = "setpoint" if forced else offer.kind
        self.offered = Offered(
            control, kind, timer=offer.revert_timer, beats=found.heartbeat, storage=storage
        )
        profile = DeviceProfile(
            device_id="under test", protocol="modbus", min_kw=Kw(-rating.absorb_kw),
            max_kw=Kw(rating.inject_kw), control=ControlKind(kind), lease=LeaseKind.REVERT_TIMER,
        )  # fmt: skip
        role: Role = "battery" if storage else "inverter"
        for on in RESTARTS:
            chosen = control_of(
                profile, role, control, on, negative_rates=self._place.negative_rates
            )
            if chosen is not None:
                self._controls[on] = chosen
        await self._teach()

    async def nameplate(self) -> Nameplate:
        """Model 1."""
        points = await self._unit.read(_COMMON, COMMAND)
        return Nameplate(*(str(points.get(name) or "") for name in ("Mn", "Md", "SN", "Vr")))

    async def rating(self) -> Rating | None:
        """The nameplate (702, 120), else the setting (121), else what the storage takes (124)."""
        models = await self._models(model for model, _ in (*_INJECTS, *_ABSORBS))
        inject = _first(models, _INJECTS)
        if inject is None:
            return None
        storage = any(model in self._unit.addresses for model, _ in _SOC)
        absorb = (_first(models, _ABSORBS) or inject) if storage else 0.0
        return Rating(inject / 1000.0, absorb / 1000.0)

    async def obstacle(self) -> str:
        """The first state that says that it does not follow now."""
        models = await self._models(model for model, _ in _STATES)
        for number, name in _STATES:
            value = models.get(number, {}).get(name)
            if value is None:
                continue
            words = meaning(load_model(number).point(name), value)
            if _CANNOT & set(words):
                return f"model {number} {name} says {' '.join(words)}"
        return ""

    async def sample(self) -> Sample:
        """W, and the state of charge where it has one."""
        model = next((one for one in INVERTER_MODELS if one in self._unit.addresses), None)
        if model is None:
            raise SunSpecError("it has no model that measures its power (701, 101-103, 111-113)")
        power = (await self._points(model, "W"))["W"]
        if not isinstance(power, int | float):
            raise SunSpecError(f"model {model} does not measure W: nothing could be seen")
        soc: Value = None
        for number, name in _SOC:
            if soc is None and number in self._unit.addresses:
                soc = (await self._points(number, name))[name]
        return Sample(power / 1000.0, float(soc) if isinstance(soc, int | float) else None)

    async def standing(self) -> Standing:
        """The control model, parsed as the driver does it."""
        control = self._control
        found = control.parse(await self._unit.read(control.model, COMMAND))
        return Standing(found.active, found.power_kw, found.lease_wall_s, found.step_kw)

    def start(self, power_kw: float, timer_s: int) -> Mapping[str, float]:
        """As the driver writes it: timer, value, enable; without a timer as under a heartbeat."""
        control = self._control if timer_s else Beaten(self._control)
        return control.start(power_kw, timer_s)

    def renew(self, on: Restart, power_kw: float, timer_s: int) -> Mapping[str, float]:
        """As the driver refreshes it."""
        return self._controls[on].refresh(power_kw, timer_s)

    def stop(self) -> Mapping[str, float]:
        """Disable."""
        return self._control.stop()

    async def encode(self, points: Mapping[str, float]) -> tuple[Write, ...]:
        """With the scale factors that the unit shows now."""
        model = self._control.model
        prepared = await self._unit.prepare(model, points)
        return tuple(
            Write(f"{model} {name}", address, tuple(words), value)
            for (name, value), (address, words) in zip(
                points.items(), prepared.requests, strict=True
            )
        )

    async def registers(self, places: Sequence[Write]) -> tuple[Write, ...]:
        """One read per place: they may lie far apart."""
        found: list[Write] = []
        for place in places:
            count = len(place.words)
            words = await self._link.read(self._place.unit, place.address, count, COMMAND)
            found.append(Write(place.point, place.address, tuple(words)))
        return tuple(found)

    async def send(self, writes: Sequence[Write]) -> None:
        """Identity first, on this very connection."""
        with self._link.command():
            await self._unit.verify(self._serial)
            connection = self._link.connections
            for write in writes:
                await self._link.write(
                    self._place.unit, write.address, write.words, connection=connection
                )

    async def beat(self) -> None:
        """715 ControllerHb, from the count that it shows."""
        if self._beats is None:
            shown = (await self._points(HEARTBEAT_MODEL, "ControllerHb"))["ControllerHb"]
            self._beats = shown if isinstance(shown, int) else 0
        self._beats = (self._beats + 1) % WRAP
        await self._unit.verify(self._serial)
        await self._unit.write(HEARTBEAT_MODEL, {"ControllerHb": self._beats})

    def reconnect(self) -> None:
        """A new link: the old one's circuit breaker would keep quiet for up to a minute."""
        addresses, chain = self._unit.addresses, self._unit.chain
        self.close()
        self._link = self._new_link()
        self._unit = SunSpecUnit(self._link, self._place.unit)
        self._unit.addresses, self._unit.chain = addresses, chain

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    @property
    def _control(self) -> Control:
        return self._controls["enable"]

    def _new_link(self) -> LineLink:
        place = self._place
        link = LineLink(place.line, timeout_s=place.timeout_s, monotonic=self._monotonic)
        link.limit(place.unit, place.reads.max_registers)
        return link

    async def _teach(self) -> None:
        """Let every form of the control know what 100 % is."""
        wanted = set(self._control.reference) & self._unit.addresses.keys()
        models = {number: await self._unit.read(number, COMMAND) for number in sorted(wanted)}
        for control in self._controls.values():
            control.learn(models)

    async def _models(self, numbers: Iterable[int]) -> dict[int, dict[str, Value]]:
        has = set(numbers) & self._unit.addresses.keys()
        return {number: await self._unit.read(number, COMMAND) for number in sorted(has)}

    async def _points(self, model: int, name: str) -> dict[str, Value]:
        return await read_points(self._unit, model, (name,), self._place.reads, COMMAND)


def _first(
    models: Mapping[int, Mapping[str, Value]], places: Sequence[tuple[int, str]]
) -> float | None:
    for model, name in places:
        value = models.get(model, {}).get(name)
        if isinstance(value, int | float) and value > 0:
            return float(value)
    return None
