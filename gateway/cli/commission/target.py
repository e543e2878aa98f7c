"""Which device is meant: a unit at an address, on a serial line, or in a configuration."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import msgspec

from adapters.commissioning import Rating
from adapters.modbus.bench import Place
from adapters.modbus.lines import Line
from adapters.modbus.offer import ControlName
from adapters.modbus.reads import ReadLimits, Span
from adapters.modbus.survey import Report
from config.loading import load_settings
from config.settings import ModbusDeviceSettings, Settings
from gateway.bindings import modbus_line
from marketplace_core.errors import ConfigError

_PATIENCE_S = 2.0
_BY_ROLE: dict[str, tuple[ControlName, ...]] = {
    "battery": ("wset", "storage_124", "wmaxlim_704", "wmaxlim_123"),
    "inverter": ("wmaxlim_704", "wmaxlim_123", "wset", "storage_124"),
}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A device to be tested."""

    place: Place
    device: ModbusDeviceSettings | None = None
    """Its entry, where it has one already."""


def at_line(line: Line, unit: int | None, *, timeout_s: float, negative_rates: bool) -> Target:
    """The unit at an address or on a serial line; click.UsageError without its number."""
    if unit is None:
        raise click.UsageError("give --unit; `flexway modbus scan` finds the number")
    if line.framed_by_silence and unit == 0:
        raise click.UsageError("unit 0 is a broadcast on a serial line: nobody answers it")
    place = Place(line=line, unit=unit, timeout_s=timeout_s, negative_rates=negative_rates)
    return Target(place=place)


def in_configuration(file: Path, device_id: str, *, timeout_s: float) -> Target:
    """The device of that id.

    Raises:
        ConfigError: the file is wrong, or the service that it is for is running: it drives the
            device, and would do so in the middle of the test.
    """
    from gateway.cli.probes import alive  # noqa: PLC0415 - brings the whole service with it

    settings = load_settings(file)
    if asyncio.run(alive(settings, _PATIENCE_S)):
        raise ConfigError(
            f"the service of {file} is running and drives {device_id}: stop it for the test "
            "(`systemctl stop flexway`)"
        )
    device = _device(settings, device_id)
    if device is None:
        listed = ", ".join(one.device_id for one in settings.modbus.devices) or "none"
        raise ConfigError(f"{file} has no Modbus device {device_id!r}; it has {listed}")
    if device.role == "meter":
        raise ConfigError(f"{device_id} is a meter: there is nothing to drive")
    place = Place(
        line=modbus_line(device), unit=device.unit, serial=device.serial, timeout_s=timeout_s,
        negative_rates=device.negative_rates,
        reads=ReadLimits(
            max_registers=device.max_registers, max_gap=device.max_gap,
            forbidden=tuple(Span(first, last + 1) for first, last in device.unreadable),
        ),
    )  # fmt: skip
    return Target(place=place, device=device)


def control_of(target: Target, named: ControlName | None, found: Report) -> ControlName:
    """The control that is asked for, configured, or the first that suits what the device is."""
    if named is not None:
        return named
    if target.device is not None and target.device.control is not None:
        return target.device.control
    offered = {offer.control for offer in found.controls}
    order = _BY_ROLE["battery" if found.role == "battery" else "inverter"]
    chosen = next((one for one in order if one in offered), None)
    if chosen is None:
        raise click.ClickException(
            "it offers none of the controls that Flexway drives; `flexway modbus read` shows what "
            "it has"
        )
    return chosen


def rating_of(target: Target, given_kw: float | None, said: Rating | None, role: str) -> Rating:
    """What was given, what the device says, or its entry; click.ClickException without any."""
    if given_kw is not None:
        return Rating(given_kw, given_kw if role == "battery" else 0.0)
    if said is not None:
        return said
    if target.device is not None:
        profile = target.device.profile
        return Rating(max(0.0, profile.max_kw), max(0.0, -profile.min_kw))
    raise click.ClickException(
        "it does not say its rating: give --rating-kw, which bounds the step and the entry"
    )


def _device(settings: Settings, device_id: str) -> ModbusDeviceSettings | None:
    return next((one for one in settings.modbus.devices if one.device_id == device_id), None)
