"""Reading a device by its profile for `flexway modbus read` and `watch`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import click

from adapters.modbus.errors import PointError
from adapters.modbus.lines import Line
from adapters.modbus.link import LineLink, LinkError
from adapters.modbus.reads import ReadLimits
from adapters.modbus.registers.codec import Value, meaning
from adapters.modbus.registers.definition import RegisterMap
from adapters.modbus.registers.unit import RegisterUnit
from config.profiles import read_profile
from gateway.cli.modbus_tables import line_document
from gateway.register_maps import read_limits, register_map
from marketplace_core.errors import ConfigError


class MappedPoints:
    """Every point of a device, read once."""

    def __init__(
        self, device: RegisterMap, values: dict[str, Value], problems: dict[str, str]
    ) -> None:
        self.device = device
        self.values = values
        self.problems = problems
        """Why a point could not be read."""

    def changed(self, now: MappedPoints) -> set[str]:
        """Names of what changed, came or went."""
        names = self.values.keys() | now.values.keys()
        return {name for name in names if self.values.get(name) != now.values.get(name)}


class MappedUnit:
    """A device that is read by its profile."""

    def __init__(self, device: RegisterMap, unit: RegisterUnit) -> None:
        self._device = device
        self._unit = unit

    async def read(self) -> MappedPoints:
        """All points; what the device refuses is said beside the others.

        LinkError when it gives no answer.
        """
        try:
            return MappedPoints(self._device, await self._unit.points(self._device.points), {})
        except LinkError as error:
            if error.exception_code is None:
                raise
        values: dict[str, Value] = {}
        problems: dict[str, str] = {}
        for name in self._device.points:
            try:
                values |= await self._unit.points([name])
            except PointError as error:
                problems[name] = str(error)
            except LinkError as error:
                if error.exception_code is None:
                    raise
                problems[name] = str(error)
        return MappedPoints(self._device, values, problems)


def mapped_unit(link: LineLink, unit: int, profile: str, models: Sequence[int]) -> MappedUnit:
    """A device behind a link; ClickException when its profile cannot be used."""
    if models:
        raise click.UsageError("--model is of SunSpec units: give it or --profile")
    try:
        document = read_profile(profile).required()
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    device = register_map(document)
    limits = read_limits(document, ReadLimits())
    link.limit(unit, limits.max_registers)
    monotonic = asyncio.get_running_loop().time
    return MappedUnit(device, RegisterUnit(link, unit, device, limits=limits, monotonic=monotonic))


def mapped_table(found: MappedPoints, changed: Collection[str] = ()) -> str:
    """A point a line, a star before what changed."""
    lines = [found.device.title]
    for name, point in found.device.points.items():
        star = "*" if name in changed else " "
        if name in found.problems:
            lines.append(f"{star} {name:<28} cannot be read: {found.problems[name]}")
            continue
        value = found.values.get(name)
        words = [f"({word})" for word in meaning(point, value)]
        number = f"{value:g}" if isinstance(value, float) else str(value)
        told = " ".join(filter(None, (number, point.unit, *words)))
        told = "not available" if value is None else told
        lines.append(f"{star} {name:<28} {told}")
    return "\n".join(lines)


def mapped_document(line: Line, unit: int, found: MappedPoints) -> dict[str, Any]:
    """The same for programs; what is not available is null."""
    points = {}
    for name, point in found.device.points.items():
        value = found.values.get(name)
        points[name] = {
            "address": point.address, "value": value, "units": point.unit,
            "meaning": list(meaning(point, value)), "problem": found.problems.get(name, ""),
        }  # fmt: skip
    return {
        **line_document(line), "unit": unit, "title": found.device.title, "points": points,
    }  # fmt: skip
