"""What Modbus devices have to be with each other and with their line."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from config.findings import Finding, Location, Severity
from config.settings import ModbusDeviceSettings, ProfileSettings, Settings

_LINE: Final = ("transport", "serial_line", "sharing", "release_after_s", "gap_s")
"""Keys that belong to the line, not to the unit on it."""
_WRITES_A_SETPOINT: Final = 6
"""Timer, fallback, its enable, mode, setpoint, enable (SunSpec model 704)."""
_LAST_REGISTER: Final = 0xFFFF
_LAST_UNIT: Final = 247
_OF_SUNSPEC: Final = ("control", "lease_restarts_on", "negative_rates")
"""Keys that a device profile says itself."""
_OF_A_PROFILE: Final = ("profile_control", "phases")
_DAY_S: Final = 86_400.0
_GOVERNED: Final = ("step_kw", "write_every_s", "writes_per_day", "refresh", "longest_lease_s")
"""Keys of a profile that are kept for Modbus devices only."""


def unfit_modbus(settings: Settings) -> Iterator[Finding]:
    """Every Modbus device that cannot be spoken to as it is described."""
    for number, device in enumerate(settings.modbus.devices):
        at: Location = ("modbus", "devices", number)
        yield from _transport(device, at)
        yield from _ranges(device, at)
        yield from _map(device, at)
        yield from _governor(device.profile, (*at, "profile"))
        checked = device.serial or device.role == "meter" or device.device_profile
        if not checked and not settings.lab:
            yield Finding(
                location=at, severity=Severity.WARNING,
                message=f"{device.device_id} has no serial: its identity is not checked before "
                "a write", remedy="`flexway check --probe` says which serial number it has",
            )  # fmt: skip
    yield from _lines(settings)


def ungoverned(profile: ProfileSettings, location: Location) -> Iterator[Finding]:
    """Limits of writes on a device of another protocol: nobody would keep them."""
    for key in _GOVERNED:
        if getattr(profile, key) != type(profile).model_fields[key].default:
            yield Finding(
                location=(*location, key), message=f"{key} is kept for Modbus devices only",
                remedy="take the line away: nothing would hold the device to it",
            )  # fmt: skip


def _transport(device: ModbusDeviceSettings, at: Location) -> Iterator[Finding]:
    if device.transport == "rtu":
        if device.serial_line is None:
            yield Finding(
                location=(*at, "transport"), message="transport = 'rtu' without serial_line",
                remedy='give serial_line = { port = "/dev/ttyUSB0", baudrate = 19200 }, or '
                "transport = 'rtu_over_tcp' for a serial server with a host",
            )  # fmt: skip
        if device.host:
            yield Finding(
                location=(*at, "host"), message=f"a serial line has no host {device.host!r}",
                remedy="take the line away, or set transport = 'rtu_over_tcp' or 'tcp'",
            )  # fmt: skip
    else:
        if not device.host:
            yield Finding(
                location=(*at, "transport"),
                message=f"transport = {device.transport!r} without host",
                remedy="give the address of the device or of its gateway",
            )
        if device.serial_line is not None:
            yield Finding(
                location=(*at, "serial_line"),
                message=f"transport = {device.transport!r} has no serial_line",
                remedy="take it away, or set transport = 'rtu'",
            )
    if device.transport != "tcp" and device.unit == 0:
        yield Finding(
            location=(*at, "unit"), message="unit 0 is a broadcast on a serial line",
            remedy="give the unit's own number, 1 to 247: nobody answers a broadcast",
        )  # fmt: skip
    if device.transport != "tcp" and device.unit > _LAST_UNIT:
        yield Finding(
            location=(*at, "unit"), message=f"unit {device.unit} on a serial line",
            remedy="a serial line has units 1 to 247; 248 to 255 are for Modbus TCP only",
        )  # fmt: skip


def _map(device: ModbusDeviceSettings, at: Location) -> Iterator[Finding]:
    """Keys of SunSpec units, and those of devices with a profile, each where they belong."""
    fields = type(device).model_fields
    mapped = bool(device.device_profile)
    for key in _OF_SUNSPEC if mapped else _OF_A_PROFILE:
        if getattr(device, key) != fields[key].default:
            yield Finding(
                location=(*at, key),
                message=f"{key} {'with' if mapped else 'without'} device_profile",
                remedy="take the line away: the device profile says it" if mapped
                else "name the device_profile that it belongs to, or take the line away",
            )  # fmt: skip
    if device.role == "charger" and not mapped:
        yield Finding(
            location=(*at, "role"), message="a charger is not driven by SunSpec",
            remedy="name its device_profile (`flexway modbus profiles` lists them)",
        )  # fmt: skip


def _ranges(device: ModbusDeviceSettings, at: Location) -> Iterator[Finding]:
    for first, last in device.unreadable:
        if not 0 <= first <= last <= _LAST_REGISTER:
            yield Finding(
                location=(*at, "unreadable"), message=f"{first} to {last} is no range of registers",
                remedy="write [[first, last], ...] within 0 to 65535",
            )  # fmt: skip


def _governor(profile: ProfileSettings, at: Location) -> Iterator[Finding]:
    if profile.step_kw > max(abs(profile.min_kw), abs(profile.max_kw)):
        yield Finding(
            location=(*at, "step_kw"),
            message=f"a step of {profile.step_kw:g} kW is more than the device can do",
            remedy="give the step in kW: everything would be rounded to zero",
        )
    if 0 < profile.writes_per_day <= _WRITES_A_SETPOINT:
        yield Finding(
            location=(*at, "writes_per_day"),
            message=f"{profile.writes_per_day} writes are not one setpoint and its end",
            remedy=f"a setpoint takes about {_WRITES_A_SETPOINT} and its end 1",
        )
    if profile.refresh == "long":
        yield from _long_lease(profile, at)
        return
    if profile.longest_lease_s > 0:
        yield Finding(
            location=(*at, "longest_lease_s"), message="longest_lease_s without refresh = 'long'",
            remedy="set refresh = 'long', or take the line away",
        )  # fmt: skip
    yield from _renewals(profile, at)


def _long_lease(profile: ProfileSettings, at: Location) -> Iterator[Finding]:
    if profile.lease != "revert_timer":
        yield Finding(
            location=(*at, "refresh"), message="refresh = 'long' without lease = 'revert_timer'",
            remedy="only a timer of the device can hold a long lease",
        )  # fmt: skip
    if 0 < profile.longest_lease_s < profile.lease_s:
        yield Finding(
            location=(*at, "longest_lease_s"),
            message=f"the longest lease of {profile.longest_lease_s:g} s is shorter than lease_s",
            remedy="make it longer than lease_s, or 0 for whatever is left of a setpoint",
        )


def _renewals(profile: ProfileSettings, at: Location) -> Iterator[Finding]:
    """A lease that is renewed at half its time needs writes for that."""
    if profile.lease != "revert_timer" or profile.lease_s <= 0:
        return
    if profile.write_every_s > profile.lease_s / 2:
        yield Finding(
            location=(*at, "write_every_s"),
            message=f"a lease of {profile.lease_s:g} s is renewed at half its time, and "
            f"write_every_s = {profile.write_every_s:g} would hold that back",
            remedy="make lease_s longer, or set refresh = 'long'",
        )
    daily = _DAY_S / (profile.lease_s / 2)
    if _WRITES_A_SETPOINT < profile.writes_per_day < daily:
        yield Finding(
            location=(*at, "writes_per_day"), severity=Severity.WARNING,
            message=f"renewing a lease of {profile.lease_s:g} s all day takes {daily:.0f} writes",
            remedy="set refresh = 'long', make lease_s longer, or accept that long setpoints end "
            "early",
        )  # fmt: skip


def _lines(settings: Settings) -> Iterator[Finding]:
    """Units on one line agree on it, and let it go where they are to share it."""
    lines: dict[tuple[str, int], list[tuple[int, ModbusDeviceSettings]]] = {}
    for number, device in enumerate(settings.modbus.devices):
        serial = device.serial_line
        key = (device.host, device.port) if serial is None else (serial.port, 0)
        lines.setdefault(key, []).append((number, device))
    for units in lines.values():
        for (_, one), (number, other) in pairwise(units):
            for name in _LINE:
                if getattr(one, name) != getattr(other, name):
                    yield Finding(
                        location=("modbus", "devices", number, name),
                        message=f"{other.device_id} and {one.device_id} are on one line and "
                        f"differ in {name}",
                        remedy="a line has one setting: give all of its units the same",
                    )
        yield from _release(units)


def _release(units: list[tuple[int, ModbusDeviceSettings]]) -> Iterator[Finding]:
    number, device = min(units, key=lambda unit: unit[1].profile.telemetry_s)
    away = device.release_after_s + device.gap_s
    if device.sharing == "release" and away >= device.profile.telemetry_s:
        yield Finding(
            location=("modbus", "devices", number, "release_after_s"),
            message=f"polled each {device.profile.telemetry_s:g} s it is never free for "
            f"release_after_s + gap_s = {away:g} s",
            remedy="make telemetry_s longer, or the two shorter",
        )
