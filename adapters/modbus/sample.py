"""What a unit is asked for with every poll, and with the slow ones besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from adapters.modbus.choice import Role
from adapters.modbus.measure import INVERTER_MODELS, METER_MODELS, STORED
from adapters.modbus.points import PointReads, Wanted
from adapters.modbus.reads import ReadLimits
from adapters.modbus.sunspec import Chain, SunSpecError
from adapters.modbus.unit import SunSpecUnit

_POWER_MODELS: Final[Mapping[Role, tuple[int, ...]]] = {
    "battery": INVERTER_MODELS,
    "inverter": INVERTER_MODELS,
    "charger": (),
    "meter": METER_MODELS,
}
_REGISTERS: Final = ("TotWhImp", "TotWhExp")
"""A meter's energy: asked for with the slow things."""


class Sampler:
    """The reads of the points that telemetry needs, planned for what the unit was found to be."""

    def __init__(self, unit: SunSpecUnit, role: Role, limits: ReadLimits) -> None:
        self._unit = unit
        self._role = role
        self._limits = limits
        self._chain: Chain | None = None
        self._fast: PointReads | None = None
        self._slow: PointReads | None = None
        self.stored: int | None = None
        """The model that says what the unit holds; None where it has none, or no storage."""

    def planned(self, *, slow: bool) -> PointReads | None:
        """What was planned for the unit as it was found last; None where nothing was yet."""
        if self._unit.chain is not self._chain:
            return None
        return self._slow if slow else self._fast

    async def plan(self, *, slow: bool) -> PointReads:
        """Power; `slow`: and stored energy, or energy registers.

        Raises LinkError where the unit is not known and does not answer, SunSpecError and
        ReadPlanError where it cannot be read.
        """
        if self._unit.chain is None:
            await self._unit.discover()
        if self._unit.chain is not self._chain:
            self._chain, self._fast, self._slow = self._unit.chain, None, None
        chain = self._chain
        model = self._first(_POWER_MODELS[self._role])
        if chain is None or model is None:
            raise SunSpecError("it has no model that measures power")
        registers = _REGISTERS if slow and self._role == "meter" else ()
        wanted: Wanted = [(model, ("W", *registers))]
        self.stored = self._first(tuple(STORED)) if self._role == "battery" else None
        if slow and self.stored is not None:
            wanted = [*wanted, (self.stored, STORED[self.stored])]
        made = PointReads(chain, wanted, self._limits)
        if slow:
            self._slow = made
        else:
            self._fast = made
        return made

    def _first(self, models: tuple[int, ...]) -> int | None:
        return next((model for model in models if self._unit.addresses.get(model)), None)
