"""Reading single points of a unit in as few requests as its limits allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from adapters.modbus.link import POLL
from adapters.modbus.reads import ReadLimits, Span, plan_reads
from adapters.modbus.sunspec import (
    Model,
    Point,
    SunSpecError,
    Value,
    decode,
    layout,
    load_model,
)
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
    if unit.chain is None:
        await unit.discover(lane)
    found = unit.chain.first(number) if unit.chain is not None else None
    if found is None:
        raise SunSpecError(f"the unit has no model {number}")
    model, start, wanted = load_model(number), found.address, list(names)
    registers = [_UNREAD] * found.length
    points = layout(model, registers).points
    spans = (_span(point, start) for point in _with_scales(model, points, wanted))
    for span in plan_reads(spans, limits):
        part = await unit.link.read(unit.number, span.start, span.count, lane)
        registers[span.start - start : span.end - start] = part
    values = decode(model, registers)
    return {name: values.get(name) for name in wanted}


def _span(point: Point, start: int) -> Span:
    return Span(start + point.offset, start + point.offset + point.size)


def _with_scales(
    model: Model, points: Mapping[str, Point], names: Iterable[str]
) -> Iterable[Point]:
    """The points, and those that hold their scale factors: they change together.

    What a unit's older revision of the model does not have is left out.
    """
    for name in names:
        if name not in model.points:
            raise SunSpecError(f"model {model.id} has no point {name}")
        point = points.get(name)
        if point is None:
            continue
        yield point
        if isinstance(point.scale, str) and point.scale in points:
            yield points[point.scale]
