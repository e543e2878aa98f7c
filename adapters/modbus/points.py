"""Reading single points of a unit in as few requests as its limits allow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adapters.modbus.link import POLL
from adapters.modbus.reads import ReadLimits, Span, plan_reads
from adapters.modbus.sunspec import Model, SunSpecError, Value, decode, load_model
from adapters.modbus.unit import SunSpecUnit

_UNREAD: Final = 0x8000
"""Stands where nothing was read: no scale factor, so that nothing is computed from it."""


async def read_points(
    unit: SunSpecUnit, number: int, names: Iterable[str], limits: ReadLimits, lane: int = POLL
) -> dict[str, Value]:
    """Named points of a model, scaled; their scale factors come along.

    Raises:
        LinkError: the unit gave no answer.
        SunSpecError: it lacks the model, or the model has no such point.
        ReadPlanError: a point stands where the unit's limits forbid reading.
    """
    if not unit.addresses:
        await unit.discover(lane)
    if number not in unit.addresses:
        raise SunSpecError(f"the unit has no model {number}")
    model, start, wanted = load_model(number), unit.addresses[number], list(names)
    registers = [_UNREAD] * model.length
    spans = (_span(model, name, start) for name in _with_scales(model, wanted))
    for span in plan_reads(spans, limits):
        found = await unit.link.read(unit.number, span.start, span.count, lane)
        registers[span.start - start : span.end - start] = found
    values = decode(model, registers)
    return {name: values[name] for name in wanted}


def _span(model: Model, name: str, start: int) -> Span:
    point = model.points[name]
    return Span(start + point.offset, start + point.offset + point.size)


def _with_scales(model: Model, names: Iterable[str]) -> Iterable[str]:
    """The points, and those that hold their scale factors: they change together."""
    for name in names:
        point = model.points.get(name)
        if point is None:
            raise SunSpecError(f"model {model.id} has no point {name}")
        yield name
        if isinstance(point.scale, str):
            yield point.scale
