"""Device settings as what each adapter takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import msgspec

from adapters.modbus.adapter import ModbusEndpoint
from adapters.modbus.lines import Line, SerialPort
from adapters.modbus.reads import ReadLimits, Span
from adapters.mqtt.adapter import MqttDevice
from adapters.mqtt.sparkplug_binding import Meaning, Role, SparkplugDevice
from adapters.openadr.config import OpenAdrVen
from adapters.webhook.config import WebhookDevice
from config.profile_model import ProfileDocument
from config.profiles import read_profile
from config.settings import ModbusDeviceSettings, ProfileSettings, Settings
from gateway.register_maps import read_limits, register_map
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind, LeaseRefresh
from marketplace_core.errors import ConfigError
from marketplace_core.ports import DeviceAdapter
from marketplace_core.units import Kw, Kwh


def device_profile(device_id: str, protocol: str, settings: ProfileSettings) -> DeviceProfile:
    """A profile from its settings."""
    fallback, capacity = settings.fallback_kw, settings.capacity_kwh
    return DeviceProfile(
        device_id=device_id,
        protocol=protocol,
        min_kw=Kw(settings.min_kw),
        max_kw=Kw(settings.max_kw),
        control=ControlKind(settings.control),
        lease=LeaseKind(settings.lease),
        lease_s=settings.lease_s,
        fallback_kw=None if fallback is None else Kw(fallback),
        capacity_kwh=None if capacity is None else Kwh(capacity),
        notice_s=settings.notice_s,
        telemetry_s=settings.telemetry_s,
        tier=settings.tier,
        weight=settings.weight,
        rank=settings.rank,
        aggregate=settings.aggregate,
        ramp_kw_per_s=settings.ramp_kw_per_s,
        min_on_kw=Kw(settings.min_on_kw),
        step_kw=settings.step_kw,
        write_every_s=settings.write_every_s,
        writes_per_day=settings.writes_per_day,
        refresh=LeaseRefresh(settings.refresh),
        longest_lease_s=settings.longest_lease_s,
    )


def modbus_line(device: ModbusDeviceSettings) -> Line:
    """The line that a Modbus unit is on."""
    serial = device.serial_line
    return Line(
        transport=device.transport, host=device.host, port=device.port, sharing=device.sharing,
        release_after_s=device.release_after_s, gap_s=device.gap_s,
        serial=None if serial is None else SerialPort(
            device=serial.port, baudrate=serial.baudrate, parity=serial.parity,
            stopbits=serial.stopbits,
        ),
    )  # fmt: skip


def modbus_endpoints(settings: Settings) -> list[ModbusEndpoint]:
    """Every Modbus unit; ConfigError when a device profile cannot be used."""
    return [_modbus_endpoint(device) for device in settings.modbus.devices]


def _modbus_endpoint(device: ModbusDeviceSettings) -> ModbusEndpoint:
    endpoint = ModbusEndpoint(
        device_id=device.device_id, line=modbus_line(device), unit=device.unit,
        role=device.role, serial=device.serial, meter_sign=device.meter_sign,
        control=device.control, lease_restarts_on=device.lease_restarts_on,
        negative_rates=device.negative_rates, phases=device.phases,
        control_name=device.profile_control or None,
        profile=device_profile(device.device_id, "modbus", device.profile),
        slow_s=device.slow_s,
        reads=ReadLimits(
            max_registers=device.max_registers, max_gap=device.max_gap,
            forbidden=tuple(Span(first, last + 1) for first, last in device.unreadable),
        ),
    )  # fmt: skip
    if not device.device_profile:
        return endpoint
    return _mapped(endpoint, read_profile(device.device_profile).required())


def _mapped(endpoint: ModbusEndpoint, document: ProfileDocument) -> ModbusEndpoint:
    """A device with its register map, and within the limits of both settings and profile."""
    profile, reads = endpoint.profile, endpoint.reads
    wear = document.flash_wear
    budgets = [profile.writes_per_day, wear.writes_per_day if wear is not None else 0]
    return msgspec.structs.replace(
        endpoint, device=register_map(document), reads=read_limits(document, reads),
        profile=msgspec.structs.replace(
            profile, writes_per_day=min((b for b in budgets if b), default=0),
            write_every_s=max(profile.write_every_s, document.write_every_s),
        ),
    )  # fmt: skip


def mqtt_devices(settings: Settings) -> list[MqttDevice]:
    """Every MQTT device that speaks our own dialect."""
    return [
        MqttDevice(
            device_id=device.device_id,
            organisation=device.organisation,
            profile=device_profile(device.device_id, "mqtt", device.profile),
        )
        for device in settings.mqtt.devices
        if device.dialect == "flexway"
    ]


def sparkplug_devices(settings: Settings) -> list[SparkplugDevice]:
    """Every MQTT device that speaks Sparkplug B."""
    return [
        SparkplugDevice(
            device_id=device.device_id,
            organisation=device.organisation,
            profile=device_profile(device.device_id, "sparkplug", device.profile),
            group=device.group,
            edge_node=device.edge_node,
            sparkplug_device=device.sparkplug_device,
            metrics={role: Meaning(metric=told.metric, scale=told.scale)
                     for role in get_args(Role)
                     if (told := getattr(device.metrics, role)) is not None},
        )
        for device in settings.mqtt.devices
        if device.dialect == "sparkplug"
    ]  # fmt: skip


def openadr_vens(settings: Settings) -> list[OpenAdrVen]:
    """Every VEN."""
    return [
        OpenAdrVen(
            device_id=ven.device_id,
            ven_name=ven.ven_name,
            fingerprint=ven.fingerprint,
            profile=device_profile(ven.device_id, "openadr", ven.profile),
        )
        for ven in settings.openadr.vens
    ]


def webhook_devices(settings: Settings) -> list[WebhookDevice]:
    """Every aggregate that is dispatched by webhook."""
    return [
        WebhookDevice(
            device_id=device.device_id,
            organisation=device.organisation,
            profile=device_profile(device.device_id, "webhook", device.profile),
        )
        for device in settings.webhook.devices
    ]


def check_unique(adapters: Iterable[DeviceAdapter]) -> None:
    """Refuse a device id that is bound twice; raises ConfigError."""
    seen: set[str] = set()
    for adapter in adapters:
        for profile in adapter.profiles():
            if profile.device_id in seen:
                raise ConfigError(
                    f"device_id {profile.device_id!r} is bound twice: give each device one binding"
                )
            seen.add(profile.device_id)
