"""What a Modbus unit's control, its profile and its lease have to do with each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from config.findings import Finding, Location, Severity
from config.settings import ModbusDeviceSettings, ProfileSettings, Settings

_NO_REVERT_VALUE: Final = ("wmaxlim_123", "storage_124")
_CEILINGS: Final = ("wmaxlim_704", "wmaxlim_123")


def unfit_controls(settings: Settings) -> Iterator[Finding]:
    """Controls that cannot do what the profile says, and heartbeats where there is none."""
    for number, device in enumerate(settings.modbus.devices):
        location: Location = ("modbus", "devices", number)
        yield from _control(device, location)
        yield from _fallback(device, location)
        undefined = not device.device_profile and device.profile.fallback_kw is None
        if device.profile.lease == "heartbeat" and undefined:
            yield Finding(
                location=(*location, "profile", "fallback_kw"),
                message="lease = 'heartbeat' without fallback_kw: model 715 defines no fallback",
                remedy="say which power the unit goes to without a heartbeat, and test it",
            )  # fmt: skip
    for section in ("mqtt", "openadr", "webhook"):
        for key, profile in _profiles(settings, section):
            if profile.lease == "heartbeat":
                yield Finding(
                    location=(section, *key, "profile", "lease"),
                    message="lease = 'heartbeat' is SunSpec's model 715",
                    remedy="only Modbus units take it: choose another lease",
                )  # fmt: skip


def _control(device: ModbusDeviceSettings, location: Location) -> Iterator[Finding]:
    setpoint = device.profile.control == "setpoint"
    if device.role == "meter" and device.control is not None:
        yield Finding(
            location=(*location, "control"), message=f"{device.device_id} is a meter",
            remedy="a meter is not driven: leave control out",
        )  # fmt: skip
    elif device.control == "storage_124" and setpoint and not device.negative_rates:
        yield Finding(
            location=(*location, "control"),
            message="model 124 sets limits: it holds no setpoint",
            remedy='say control = "limit" in the profile, or negative_rates = true where the maker '
            "allows a negative rate (then it forces charge and discharge)",
        )
    elif device.control in _CEILINGS and setpoint:
        yield Finding(
            location=(*location, "profile", "control"), severity=Severity.WARNING,
            message=f"{device.control} is a ceiling: it drives no power up",
            remedy='say control = "limit" in the profile',
        )  # fmt: skip
    elif device.control == "wset" and not setpoint:
        yield Finding(
            location=(*location, "profile", "control"), severity=Severity.WARNING,
            message="wset drives the power to its number: it is no limit",
            remedy='say control = "setpoint" in the profile',
        )  # fmt: skip


def _fallback(device: ModbusDeviceSettings, location: Location) -> Iterator[Finding]:
    """A timer that ends in no limit cannot hold a fallback."""
    control = device.control or ("wmaxlim_123" if device.role == "inverter" else "")
    profile = device.profile
    if (
        control in _NO_REVERT_VALUE and profile.lease == "revert_timer"
        and profile.fallback_kw is not None
    ):  # fmt: skip
        yield Finding(
            location=(*location, "profile", "fallback_kw"), severity=Severity.WARNING,
            message=f"{control} has no revert value: after its timer there is no limit, and not "
            f"{profile.fallback_kw:g} kW",
            remedy="take the line away, or say lease = 'watchdog': the gateway then writes it",
        )  # fmt: skip


def _profiles(
    settings: Settings, section: str
) -> Iterator[tuple[tuple[str, int], ProfileSettings]]:
    name = "vens" if section == "openadr" else "devices"
    for number, device in enumerate(getattr(getattr(settings, section), name)):
        yield (name, number), device.profile
