"""A photovoltaic inverter: generates what the sun gives, up to its limit."""

from __future__ import annotations

from datetime import datetime

import msgspec


class InverterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the inverter can do."""

    rated_kw: float


class InverterState(msgspec.Struct, frozen=True):
    """Where the inverter stands."""

    at: datetime
    generated_kwh: float = 0.0
    curtailed_kwh: float = 0.0


class InverterInputs(msgspec.Struct, frozen=True):
    """What reaches the inverter during a step."""

    available_kw: float
    """What the sun gives."""
    limit_kw: float | None = None
    """Ceiling in force; None = no limit, which is the fallback."""


class InverterOutputs(msgspec.Struct, frozen=True):
    """What the inverter did during a step."""

    power_kw: float
    curtailed_kw: float
    fallback: bool


def update(
    spec: InverterSpec, state: InverterState, time: datetime, inputs: InverterInputs
) -> tuple[InverterState, InverterOutputs]:
    """Advance to `time`; the power follows sun and limit within the step."""
    hours = (time - state.at).total_seconds() / 3600.0
    if hours <= 0:
        msg = f"a step must go forward: {state.at} to {time}"
        raise ValueError(msg)
    possible = min(spec.rated_kw, inputs.available_kw)
    ceiling = possible if inputs.limit_kw is None else max(0.0, inputs.limit_kw)
    power = min(possible, ceiling)
    outputs = InverterOutputs(power, possible - power, inputs.limit_kw is None)
    generated = state.generated_kwh + power * hours
    curtailed = state.curtailed_kwh + outputs.curtailed_kw * hours
    return InverterState(time, generated, curtailed), outputs
