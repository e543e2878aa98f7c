"""The meter at a home's grid connection point."""

from __future__ import annotations

from datetime import datetime

import msgspec


class MeterState(msgspec.Struct, frozen=True):
    """The meter's registers."""

    at: datetime
    exported_kwh: float = 0.0
    imported_kwh: float = 0.0


class MeterInputs(msgspec.Struct, frozen=True):
    """What flows behind the meter during a step, as means over the step."""

    load_kw: float
    """Consumption, positive."""
    pv_kw: float
    """Generation, positive."""
    battery_kw: float
    """Discharge positive, charge negative."""


class MeterOutputs(msgspec.Struct, frozen=True):
    """What the meter measured during a step."""

    power_kw: float
    """Mean power, injection positive."""


def update(
    state: MeterState, time: datetime, inputs: MeterInputs
) -> tuple[MeterState, MeterOutputs]:
    """Advance to `time`; the two registers only ever count up."""
    hours = (time - state.at).total_seconds() / 3600.0
    if hours <= 0:
        msg = f"a step must go forward: {state.at} to {time}"
        raise ValueError(msg)
    power = inputs.pv_kw + inputs.battery_kw - inputs.load_kw
    energy = power * hours
    exported = state.exported_kwh + max(0.0, energy)
    imported = state.imported_kwh + max(0.0, -energy)
    return MeterState(time, exported, imported), MeterOutputs(power)
