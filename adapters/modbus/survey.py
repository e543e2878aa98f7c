"""What answers at an address: units, what they are, measure and offer. Reads only.

Finding out takes two steps. A unit that is there answers a request for two registers within a
fraction of a second, so an absent one costs one short wait, once; who answered is then asked in
full, with more patience.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from adapters.modbus.link import LineLink, LinkError, UnitDown
from adapters.modbus.offer import CONTROL_MODELS, HEARTBEAT_MODEL, Offer, beats, offers
from adapters.modbus.sunspec import (
    BASES,
    MARKER,
    Found,
    SunSpecError,
    Value,
    defined,
    load_model,
    meaning,
)
from adapters.modbus.unit import Identity, SunSpecUnit

Role = Literal["battery", "inverter", "meter", "unknown"]
_METERS: Final = frozenset({201, 202, 203, 204, 211, 212, 213, 214})
_STORAGE: Final = frozenset({713, 802, 124})
_INVERTERS: Final = frozenset({701, 101, 102, 103, 111, 112, 113})
_POWER: Final = (701, 103, 102, 101, 113, 112, 111, 203, 202, 201, 204, 213, 212, 211, 214, 802)
"""Models that measure active power, the most telling first."""
_FIGURES: Final[Mapping[str, tuple[tuple[int, str], ...]]] = {
    "power_w": tuple((model, "W") for model in _POWER),
    "frequency_hz": tuple((model, "Hz") for model in _POWER[:-1]),
    "rating_w": ((702, "WMaxRtg"), (120, "WRtg")),
    "soc_percent": ((713, "SoC"), (802, "SoC"), (124, "ChaState")),
    "stored_wh": ((713, "WHAvail"),),
    "capacity_wh": ((713, "WHRtg"), (802, "WHRtg"), (120, "WHRtg")),
}
"""What is shown of a unit, and which points say it; the first that does is taken."""
_STATES: Final = ((701, "InvSt"), (103, "St"), (102, "St"), (101, "St"), (113, "St"), (112, "St"),
                  (111, "St"), (802, "State"), (124, "ChaSt"))  # fmt: skip
_NOBODY: Final = frozenset({10, 11})
"""A gateway says so of a unit that it cannot reach (Modbus Application Protocol, section 7)."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One unit that answers."""

    unit: int
    role: Role = "unknown"
    identity: Identity | None = None
    models: tuple[Found, ...] = ()
    figures: dict[str, float] = {}
    """Watts, hertz, watt-hours and per cent as the unit signs them: `power_w`, `soc_percent` .."""
    state: str = ""
    controls: tuple[Offer, ...] = ()
    heartbeat: bool = False
    also: tuple[int, ...] = ()
    """Other unit numbers under which the very same device answers."""
    remark: str = ""
    """What is wrong with it, although it could be read."""
    problem: str = ""
    """Why it could not be read."""


async def present(link: LineLink, unit: int) -> bool:
    """Whether anybody answers as `unit`, were it a refusal; UnitDown without a connection."""
    try:
        await link.read(unit, BASES[0], len(MARKER))
    except UnitDown:
        raise
    except LinkError as error:
        return error.exception_code is not None and error.exception_code not in _NOBODY
    return True


async def survey(link: LineLink, unit: int, known: Iterable[Report] = ()) -> Report:
    """Ask one unit in full; what it refuses stands in the report.

    `known`: units that were asked before. Some devices answer to every unit number: such a one
    is recognised by its identity, and not asked all over again.
    """
    asked = SunSpecUnit(link, unit)
    try:
        await asked.discover()
        identity = await asked.identity()
    except (LinkError, SunSpecError) as error:
        return Report(unit=unit, problem=str(error))
    chain = asked.chain
    found, remark = (chain.models, chain.remark) if chain else ((), "")
    for other in known:
        if identity.serial and (other.identity, other.models) == (identity, found):
            return Report(unit=unit, identity=identity, models=found, also=(other.unit,))
    models, failed = await _points(asked, {one.model for one in found})
    return Report(
        unit=unit, role=_role(set(asked.addresses)), identity=identity, models=found,
        figures=_figures(models), state=_state(models), controls=offers(models),
        heartbeat=beats(models), remark="; ".join(filter(None, (remark, failed))),
    )  # fmt: skip


def merge(reports: Iterable[Report]) -> list[Report]:
    """One report per device: the numbers it answers to besides stand in `also`."""
    merged: dict[int, Report] = {}
    for report in reports:
        if report.also and report.also[0] in merged:
            first = merged[report.also[0]]
            also = (*first.also, report.unit)
            merged[first.unit] = msgspec.structs.replace(first, also=also)
        else:
            merged[report.unit] = report
    return list(merged.values())


async def _points(unit: SunSpecUnit, models: set[int]) -> tuple[dict[int, dict[str, Value]], str]:
    """Points of the models that are shown; and of the ones that stayed unread, why."""
    wanted = {model for places in _FIGURES.values() for model, _ in places}
    wanted |= {model for model, _ in _STATES} | CONTROL_MODELS | {HEARTBEAT_MODEL}
    values: dict[int, dict[str, Value]] = {}
    failed: list[str] = []
    for model in sorted(wanted & models):
        if not defined(model):
            continue
        try:
            values[model] = await unit.read(model)
        except (LinkError, SunSpecError) as error:
            failed.append(f"model {model}: {error}")
    return values, "; ".join(failed)


def _role(models: set[int]) -> Role:
    if models & _STORAGE:
        return "battery"
    if models & _INVERTERS:
        return "inverter"
    return "meter" if models & _METERS else "unknown"


def _figures(models: Mapping[int, Mapping[str, Value]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, places in _FIGURES.items():
        for model, point in places:
            value = models.get(model, {}).get(point)
            if isinstance(value, int | float):
                figures[name] = value
                break
    return figures


def _state(models: Mapping[int, Mapping[str, Value]]) -> str:
    for model, name in _STATES:
        value = models.get(model, {}).get(name)
        if value is not None:
            words = meaning(load_model(model).point(name), value)
            return " ".join(words) or str(value)
    return ""
