"""What `flexway modbus` shows: points and units as tables and as JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import click
import msgspec

from adapters.modbus.lines import Line
from adapters.modbus.link import LinkError
from adapters.modbus.sunspec import (
    Found,
    Point,
    SunSpecError,
    Value,
    decode,
    defined,
    layout,
    load_model,
    meaning,
)
from adapters.modbus.survey import Report
from adapters.modbus.unit import SunSpecUnit

_HIDDEN: Final = ("ID", "L")
_FIGURES: Final = {
    "power_w": "{:.0f} W", "soc_percent": "{:.1f} %", "stored_wh": "{:.0f} Wh",
    "capacity_wh": "of {:.0f} Wh", "rating_w": "rated {:.0f} W", "frequency_hz": "{:.2f} Hz",
}  # fmt: skip


class ModelPoints(msgspec.Struct, frozen=True):
    """One model of a unit, read."""

    found: Found
    label: str
    points: dict[str, Point]
    values: dict[str, Value]
    problem: str = ""
    """Why it could not be read."""


async def read_models(unit: SunSpecUnit, wanted: Sequence[int]) -> list[ModelPoints]:
    """The models asked for, or all.

    What cannot be read is an error where it was asked for, and else stands beside the others.
    LinkError when nothing answers, SunSpecError when the unit lacks a model that was asked for.
    """
    chain = unit.chain
    models = chain.models if chain is not None else ()
    has = {found.model for found in models}
    for number in wanted:
        if number not in has:
            listed = ", ".join(map(str, sorted(has)))
            raise SunSpecError(f"the unit has no model {number}; it has {listed}")
    read: list[ModelPoints] = []
    for found in models:
        if wanted and found.model not in wanted:
            continue
        if not defined(found.model):
            read.append(ModelPoints(found, "a maker's own, not defined by SunSpec", {}, {}))
            continue
        model = load_model(found.model)
        try:
            registers = await unit.registers_of(found)
        except (LinkError, SunSpecError) as error:
            if wanted or not _goes_on(error):
                raise
            read.append(ModelPoints(found, model.label, {}, {}, str(error)))
            continue
        points = layout(model, registers).points
        read.append(ModelPoints(found, model.label, points, decode(model, registers)))
    return read


def _goes_on(error: LinkError | SunSpecError) -> bool:
    """Whether the unit still speaks: it refused this model, or showed nonsense in it."""
    return isinstance(error, SunSpecError) or error.exception_code is not None


def compared(before: Sequence[ModelPoints], now: Sequence[ModelPoints]) -> set[tuple[int, str]]:
    """(address of the model, point) of what changed, came or went."""
    old, new = _by_place(before), _by_place(now)
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


def points_table(models: Iterable[ModelPoints], changed: Collection[tuple[int, str]] = ()) -> str:
    """Every point that the unit implements, one a line, a star before what changed."""
    lines: list[str] = []
    for model in models:
        found = model.found
        lines.append(f"model {found.model}  {model.label}  (at {found.address})")
        if model.problem:
            lines.append(f"  cannot be read: {model.problem}")
        for name, value in model.values.items():
            if value is None or name in _HIDDEN:
                continue
            star = "*" if (found.address, name) in changed else " "
            lines.append(f"{star} {name:<28} {_shown(model.points[name], value)}".rstrip())
    return "\n".join(lines)


def points_document(line: Line, unit: int, models: Iterable[ModelPoints]) -> dict[str, Any]:
    """The same for programs; what is not implemented is null."""
    return {
        **line_document(line), "unit": unit,
        "models": [
            {
                "model": model.found.model, "label": model.label,
                "address": model.found.address, "length": model.found.length,
                "problem": model.problem,
                "points": {name: _document(model.points[name], value)
                           for name, value in model.values.items()},
            }
            for model in models
        ],
    }  # fmt: skip


def scan_table(reports: Iterable[Report]) -> str:
    """A paragraph per unit: who, what it has, measures and offers."""
    return "\n".join(line for report in reports for line in _paragraph(report))


def line_document(line: Line) -> dict[str, Any]:
    """Where it is, for programs: host and port, or the serial line."""
    if line.serial is None:
        return {"transport": line.transport, "host": line.host, "port": line.port}
    return {"transport": line.transport, "serial_line": msgspec.to_builtins(line.serial)}


def scan_document(line: Line, reports: Iterable[Report]) -> dict[str, Any]:
    """What was found, for programs."""
    units = [
        {
            **msgspec.to_builtins(report),
            "models": [{**msgspec.to_builtins(found), "label": _label(found.model)}
                       for found in report.models],
        }
        for report in reports
    ]  # fmt: skip
    return {**line_document(line), "units": units}


def _paragraph(report: Report) -> Iterable[str]:
    head = click.style(f"unit {report.unit:<4}", bold=True)
    if report.identity is None:
        yield f"{head} cannot be read: {report.problem}"
        return
    who = report.identity
    yield f"{head} {report.role}: {who.manufacturer} {who.model}, serial {who.serial or '(none)'}"
    if report.also:
        yield f"    the same device answers as unit {_ranges(report.also)} as well"
    figures = [form.format(report.figures[name]) for name, form in _FIGURES.items()
               if name in report.figures]  # fmt: skip
    yield f"    now       {', '.join(filter(None, (*figures, report.state))) or 'measures nothing'}"
    yield f"    models    {', '.join(str(found.model) for found in report.models)}"
    offered = [
        f"{offer.control} ({offer.kind}, {'revert timer' if offer.revert_timer else 'no timer'})"
        for offer in report.controls
    ]
    offered += ["heartbeat (715)"] if report.heartbeat else []
    yield f"    controls  {', '.join(offered) or 'none'}"
    if report.remark:
        yield f"    remark    {report.remark}"


def _label(number: int) -> str:
    return load_model(number).label if defined(number) else ""


def _ranges(numbers: Sequence[int]) -> str:
    """2, 3, 4, 9 -> 2-4, 9."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _shown(point: Point, value: Value) -> str:
    words = meaning(point, value)
    if point.type.startswith("bitfield"):
        return f"0x{value:X} {' '.join(words)}" if isinstance(value, int) else str(value)
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return " ".join(filter(None, (number, point.units, *(f"({word})" for word in words))))


def _document(point: Point, value: Value) -> dict[str, Any]:
    entry: dict[str, Any] = {"value": value}
    if point.units:
        entry["units"] = point.units
    if words := meaning(point, value):
        entry["meaning"] = list(words)
    return entry


def _by_place(models: Iterable[ModelPoints]) -> dict[tuple[int, str], Value]:
    return {
        (model.found.address, name): value
        for model in models
        for name, value in model.values.items()
    }
