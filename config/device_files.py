"""Device profiles that settings name: whether they can be used, and fit what the settings say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from config.findings import Finding, Location, Severity
from config.profile_model import ControlEntry, ProfileDocument
from config.profiles import read_profile
from config.schema import nearest
from config.settings import ModbusDeviceSettings, Settings

_OF_THE_DEVICE: Final = ("revert_timer", "time_to_live", "event_end", "heartbeat")
"""Leases that a device ends by itself."""
_ROUNDING: Final = 1e-6
_DAY_S: Final = 86_400.0


def device_profile_findings(settings: Settings) -> Iterator[Finding]:
    """Everything wrong with the device profiles of Modbus devices; reads their files."""
    for number, device in enumerate(settings.modbus.devices):
        if device.device_profile:
            yield from _device(device, ("modbus", "devices", number))


def control_of(device: ModbusDeviceSettings, profile: ProfileDocument) -> ControlEntry | None:
    """The control that drives a device, where its profile has one of that name."""
    if not device.profile_control:
        return next(iter(profile.controls.values()), None)
    return profile.controls.get(device.profile_control)


def _device(device: ModbusDeviceSettings, at: Location) -> Iterator[Finding]:
    loaded = read_profile(device.device_profile)
    for error in loaded.errors:
        yield Finding(
            location=(*at, "device_profile"), message=loaded.sources.explain(error),
            remedy=f"`flexway modbus profiles --check {loaded.name}` says everything at once"
            if loaded.profile is not None or loaded.sources.lines else "",
        )  # fmt: skip
    if loaded.profile is None or loaded.errors:
        return
    profile, control = loaded.profile, control_of(device, loaded.profile)
    yield from _fits(device, profile, at)
    if control is not None:
        yield from _lease(device, control, at)
        yield from _pace(device, profile, control, at)
        yield from _range(device, control, at)


def _fits(
    device: ModbusDeviceSettings, profile: ProfileDocument, at: Location
) -> Iterator[Finding]:
    name = device.device_profile
    if device.role != profile.role:
        yield Finding(
            location=(*at, "role"), message=f"{name} is of a {profile.role}",
            remedy=f"role = {profile.role!r}, or another device_profile",
        )  # fmt: skip
    if device.profile_control and device.profile_control not in profile.controls:
        yield Finding(
            location=(*at, "profile_control"),
            message=f"{name} has no control {device.profile_control!r}",
            remedy=nearest(device.profile_control, profile.controls),
        )  # fmt: skip
    if device.serial and profile.identity.serial is None:
        yield Finding(
            location=(*at, "serial"), message=f"{name} names no register of a serial number",
            remedy="take the line away: it cannot be checked",
        )  # fmt: skip
    if not device.serial and profile.identity.serial is not None and profile.controls:
        yield Finding(
            location=at, severity=Severity.WARNING,
            message=f"{device.device_id} has no serial: its identity is not checked before a write",
            remedy="`flexway modbus read --profile` shows the serial number",
        )  # fmt: skip
    if not profile.controls and profile.role != "meter":
        yield Finding(
            location=(*at, "device_profile"), severity=Severity.WARNING,
            message=f"{name} has no control: {device.device_id} is only read",
            remedy="it is refused for dispatch",
        )  # fmt: skip
    if not profile.verified and profile.controls:
        yield Finding(
            location=(*at, "device_profile"), severity=Severity.WARNING,
            message=f"{name} was written from the documents alone, and never run on the hardware",
            remedy="try each control by hand before it is dispatched unattended",
        )  # fmt: skip


def _lease(device: ModbusDeviceSettings, control: ControlEntry, at: Location) -> Iterator[Finding]:
    told, here = device.profile, (*at, "profile")
    if told.control != control.kind:
        yield Finding(
            location=(*here, "control"), message=f"control = {told.control!r}, and the device "
            f"profile's control is a {control.kind}", remedy=f"control = {control.kind!r}",
        )  # fmt: skip
    beats = control.lease.kind == "heartbeat"
    if (told.lease == "heartbeat") != beats and (beats or told.lease in _OF_THE_DEVICE):
        yield Finding(
            location=(*here, "lease"), message=f"lease = {told.lease!r}, and the device profile's "
            f"control has a lease of kind {control.lease.kind}",
            remedy="lease = 'heartbeat'" if beats else "lease = 'revert_timer' where it has a "
            "timer or a fixed time, else 'watchdog'",
        )  # fmt: skip
    elif told.lease in _OF_THE_DEVICE and control.lease.kind == "none":
        yield Finding(
            location=(*here, "lease"), message=f"lease = {told.lease!r}, and the device keeps what "
            "it was told for ever", remedy="lease = 'watchdog': the gateway releases it",
        )  # fmt: skip
    elif told.lease == "revert_timer" and told.lease_s > control.lease.longest_s:
        yield Finding(
            location=(*here, "lease_s"), message=f"the device falls back after "
            f"{control.lease.longest_s:g} s at the latest, and lease_s is {told.lease_s:g}",
            remedy=f"lease_s = {control.lease.longest_s:g} or less",
        )  # fmt: skip
    elif told.lease == "revert_timer" and told.fallback_kw is not None:
        yield Finding(
            location=(*here, "fallback_kw"), severity=Severity.WARNING,
            message=f"the device itself falls back to {control.fallback.replace('_', ' ')}",
            remedy="take fallback_kw away, or count on it only while the gateway lives",
        )  # fmt: skip


def _pace(
    device: ModbusDeviceSettings, profile: ProfileDocument, control: ControlEntry, at: Location
) -> Iterator[Finding]:
    """A lease that is renewed at half its time needs writes for that."""
    told, wear = device.profile, profile.flash_wear
    if told.lease_s <= 0 or told.refresh == "long":
        return
    if control.lease_restarts_on is not None and profile.write_every_s > told.lease_s / 2:
        yield Finding(
            location=(*at, "profile", "lease_s"),
            message=f"it is renewed at half its time, and {device.device_id} is written each "
            f"{profile.write_every_s:g} s at most", remedy="make lease_s longer",
        )  # fmt: skip
    renewed = {
        "timer": control.lease.point, "value": control.value.point,
        "enable": control.enable.point if control.enable is not None else None, None: None,
    }[control.lease_restarts_on]  # fmt: skip
    kept = renewed is not None and profile.points[renewed].kept_in != "ram"
    daily = _DAY_S / (told.lease_s / 2)
    if kept and wear is not None and 0 < wear.writes_per_day < daily:
        yield Finding(
            location=(*at, "profile", "lease_s"), severity=Severity.WARNING,
            message=f"renewing it all day takes {daily:.0f} writes, and {device.device_id} takes "
            f"{wear.writes_per_day}", remedy="make lease_s longer, or refresh = 'long'",
        )  # fmt: skip


def _range(device: ModbusDeviceSettings, control: ControlEntry, at: Location) -> Iterator[Finding]:
    """Of a control in amperes: what it can be told, in kilowatts."""
    value, told = control.value, device.profile
    kw = value.volts * device.phases / 1000.0
    if not kw:
        return
    most = max(-told.min_kw, told.max_kw)
    if value.most is not None and most > value.most * kw + _ROUNDING:
        yield Finding(
            location=(*at, "profile"), message=f"{most:g} kW is more than {value.most:g} A on "
            f"{device.phases} phases, {value.most * kw:.3f} kW", remedy="make the range smaller",
        )  # fmt: skip
    idle = control.direction or (control.enable is not None and control.enable.idle is not None)
    if value.least and not idle and told.min_kw <= 0 <= told.max_kw:
        yield Finding(
            location=(*at, "profile"), severity=Severity.WARNING,
            message=f"0 kW cannot be had: {value.least:g} A are the least",
            remedy=f"max_kw = {-value.least * kw:.2f}: less would be planned and refused",
        )  # fmt: skip
    if value.least * kw > told.min_on_kw + _ROUNDING:
        yield Finding(
            location=(*at, "profile", "min_on_kw"), severity=Severity.WARNING,
            message=f"below {value.least:g} A on {device.phases} phases it does not charge",
            remedy=f"min_on_kw = {value.least * kw:.2f}: less would be planned and refused",
        )  # fmt: skip
