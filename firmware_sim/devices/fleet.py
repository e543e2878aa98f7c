"""Chargers behind an aggregator's own backend: one commanded power, shared over many cars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from firmware_sim.devices import charger

_ENOUGH_KW = 1e-9


class FleetSpec(msgspec.Struct, frozen=True):
    """The backend's stations."""

    chargers: tuple[charger.ChargerSpec, ...]


class FleetState(msgspec.Struct, frozen=True):
    """Where each station stands."""

    at: datetime
    chargers: tuple[charger.ChargerState, ...]


class FleetOutputs(msgspec.Struct, frozen=True):
    """What all stations did together during a step."""

    mean_kw: float
    """Negative: consumption."""
    power_kw: float
    available: bool
    """At least one car can be driven."""
    unserved_kwh: float
    fallback: bool


def started(spec: FleetSpec, at: datetime) -> FleetState:
    """The state at an instant before which nobody commanded the fleet."""
    return FleetState(at, tuple(charger.started(one, at) for one in spec.chargers))


def shown(spec: FleetSpec, state: FleetState) -> FleetOutputs:
    """What the fleet shows before its first step."""
    parts = _outputs(spec, state)
    return _together(parts, sum(one.power_kw for one in parts), fallback=True)


def update(
    spec: FleetSpec, state: FleetState, time: datetime, commanded_kw: float | None
) -> tuple[FleetState, FleetOutputs]:
    """Advance to `time` under one aggregate power (negative), or None = each station by itself."""
    asked = setpoints(spec, state, commanded_kw)
    steps = [
        charger.update(one, now, time, charger.ChargerInputs(kw))
        for one, now, kw in zip(spec.chargers, state.chargers, asked, strict=True)
    ]
    after = FleetState(time, tuple(now for now, _ in steps))
    parts = [did for _, did in steps]
    mean = sum(one.mean_kw for one in parts)
    return after, _together(parts, mean, fallback=commanded_kw is None)


def setpoints(spec: FleetSpec, state: FleetState, commanded_kw: float | None) -> list[float | None]:
    """Each station's part of an aggregate power; cars without slack are served whatever it is.

    The others give up what they would draw by themselves in proportion to their slack, or
    take more in proportion to what they want.
    """
    if commanded_kw is None:
        return [None] * len(spec.chargers)
    parts = _outputs(spec, state)
    wants = [one.wanted_kwh or 0.0 if one.available else 0.0 for one in parts]
    own = [-one.power_kw if one.available else 0.0 for one in parts]
    forced = sum(-one.power_kw for one in parts if not one.available)
    change = max(0.0, -commanded_kw - forced) - sum(own)
    if change >= 0:
        room = [one.rate_kw - kw for one, kw in zip(spec.chargers, own, strict=True)]
        moves = share(change, wants, room)
    else:
        moves = [-kw for kw in share(-change, _slacks(spec, state, parts), own)]
    return [0.0 - (kw + move) for kw, move in zip(own, moves, strict=True)]


def share(total_kw: float, weights: Sequence[float], caps: Sequence[float]) -> list[float]:
    """Share a power by weight, nobody above their cap; what a cap cuts off goes to the others."""
    shares = [0.0] * len(weights)
    open_ = [index for index, weight in enumerate(weights) if weight > 0]
    left = total_kw
    while open_ and left > _ENOUGH_KW:
        most = max(weights[index] for index in open_)  # tiny weights alone would overflow
        parts = {index: weights[index] / most for index in open_}
        scale = left / sum(parts.values())
        full = [index for index in open_ if parts[index] * scale >= caps[index]]
        for index in full or open_:
            shares[index] = min(caps[index], parts[index] * scale)
        if not full:
            break
        left -= sum(caps[index] for index in full)
        open_ = [index for index in open_ if index not in full]
    return shares


def _outputs(spec: FleetSpec, state: FleetState) -> list[charger.ChargerOutputs]:
    return [
        charger.outputs(one, now, 0.0, None)
        for one, now in zip(spec.chargers, state.chargers, strict=True)
    ]


def _slacks(
    spec: FleetSpec, state: FleetState, parts: Sequence[charger.ChargerOutputs]
) -> list[float]:
    """Energy that each car that can be driven could still get beyond what it wants, in kWh."""
    slacks = []
    for one, part in zip(spec.chargers, parts, strict=True):
        left = 0.0
        if part.available and part.leaves is not None and part.wanted_kwh is not None:
            hours = (part.leaves - state.at).total_seconds() / 3600.0
            left = one.rate_kw * hours - part.wanted_kwh
        slacks.append(max(0.0, left))
    return slacks


def _together(
    parts: Sequence[charger.ChargerOutputs], mean_kw: float, *, fallback: bool
) -> FleetOutputs:
    return FleetOutputs(
        mean_kw=0.0 + mean_kw,
        power_kw=0.0 + sum(one.power_kw for one in parts),
        available=any(one.available for one in parts),
        unserved_kwh=sum(one.unserved_kwh for one in parts),
        fallback=fallback,
    )
