"""Adapters of every protocol, made from the settings."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from adapters.modbus.adapter import ModbusAdapter
from adapters.mqtt.adapter import MqttAdapter
from adapters.mqtt.link import MqttBroker
from adapters.mqtt.sparkplug_adapter import SparkplugAdapter
from adapters.webhook.adapter import WebhookAdapter
from config.settings import MqttSettings, Settings
from gateway.bindings import (
    check_unique,
    modbus_endpoints,
    mqtt_devices,
    openadr_vens,
    sparkplug_devices,
    webhook_devices,
)
from gateway.bootstrap.basis import Basis
from gateway.bootstrap.webhooks import Hooks
from gateway.store.setpoints import SetpointRow, SetpointState
from gateway.surroundings import MakeAdapters
from marketplace_core.dispatch.profile import DeviceProfile
from marketplace_core.errors import ConfigError
from marketplace_core.ports import DeviceAdapter
from marketplace_core.simtime import check_speed

_SLOWEST_TIMER_WALL_S = 1.0
"""A revert timer counts whole seconds: a lease must last at least one on the wall."""
_MAY_BE_KNOWN = (SetpointState.ISSUED, SetpointState.APPLIED, SetpointState.UNCONFIRMED)
"""States in which a VEN may hold an event; what is only planned is not sent before its fact."""


@runtime_checkable
class _Linked(Protocol):
    """An adapter with one link to all of its devices."""

    @property
    def link_up(self) -> bool: ...


@runtime_checkable
class _Explained(Protocol):
    """An adapter that knows why its link is down."""

    @property
    def link_fault(self) -> str: ...


def make_adapters(
    basis: Basis, hooks: Hooks, *, telemetry_elsewhere: bool = False
) -> dict[str, DeviceAdapter]:
    """Adapters of every protocol that the settings bind devices to, over the network.

    `telemetry_elsewhere`: ingest workers take in what MQTT devices say of our own dialect.
    """
    settings = basis.settings
    adapters: dict[str, DeviceAdapter] = {}
    if settings.modbus.devices:
        adapters["modbus"] = ModbusAdapter(
            modbus_endpoints(settings), clock=basis.clock, time_map=basis.time_map,
            timeout_s=settings.modbus.timeout_s, writes=settings.modbus.writes,
        )  # fmt: skip
    if own := mqtt_devices(settings):
        adapters["mqtt"] = MqttAdapter(
            mqtt_broker(settings), own, clock=basis.clock,
            time_map=basis.time_map, ack_timeout_s=settings.mqtt.ack_timeout_s,
            noted=basis.metrics.mqtt_reason,
            part="commands" if telemetry_elsewhere else "all",
        )  # fmt: skip
    if sparkplug := sparkplug_devices(settings):
        adapters["sparkplug"] = SparkplugAdapter(
            mqtt_broker(settings), sparkplug, host_id=settings.mqtt.sparkplug_host,
            clock=basis.clock, time_map=basis.time_map,
            ack_timeout_s=settings.mqtt.ack_timeout_s,
            rebirth_every_s=settings.mqtt.rebirth_every_s, noted=basis.metrics.mqtt_reason,
        )  # fmt: skip
    if settings.openadr.vens:
        from gateway.bootstrap import openadr  # noqa: PLC0415 - a slow library, where it is used

        adapters["openadr"] = openadr.make(basis)
    if settings.webhook.devices:
        adapters["webhook"] = WebhookAdapter(
            webhook_devices(settings), courier=hooks.courier,
            directory=hooks.book.dispatch_endpoint, policy=hooks.policy, clock=basis.clock,
            time_map=basis.time_map, new_id=basis.new_id,
        )  # fmt: skip
    check_unique(adapters.values())
    return adapters


def field_adapters(settings: Settings, make: MakeAdapters) -> dict[str, DeviceAdapter]:
    """Adapters that are handed in, for the devices that the settings bind."""
    devices = mqtt_devices(settings)
    bound: dict[str, Sequence[DeviceProfile]] = {
        "modbus": [endpoint.profile for endpoint in modbus_endpoints(settings)],
        "mqtt": [device.profile for device in devices],
        "sparkplug": [device.profile for device in sparkplug_devices(settings)],
        "openadr": [ven.profile for ven in openadr_vens(settings)],
        "webhook": [device.profile for device in webhook_devices(settings)],
    }
    adapters = make({name: found for name, found in bound.items() if found}, devices)
    check_unique(adapters.values())
    return adapters


def mqtt_broker(settings: Settings) -> MqttBroker:
    """The broker as the MQTT adapter takes it; reads the password and the certificates.

    Raises: ConfigError when a file cannot be used.
    """
    mqtt = settings.mqtt
    password = ""
    if mqtt.password_file is not None:
        password = mqtt.password_file.read_text(encoding="utf-8").strip()
    tls = _tls(mqtt) if mqtt.tls else None
    return MqttBroker(
        host=mqtt.host, port=mqtt.port, client_id=mqtt.client_id, username=mqtt.username,
        password=password, tls=tls, version=5 if mqtt.protocol == "5" else 4,
        keepalive_s=mqtt.keepalive_s, session_expiry_s=mqtt.session_expiry_s,
        receive_maximum=mqtt.receive_maximum, maximum_packet=mqtt.maximum_packet_bytes,
        most_waiting=mqtt.queue,
    )  # fmt: skip


def _tls(mqtt: MqttSettings) -> ssl.SSLContext:
    """Verifies the broker, and shows it the gateway's certificate where there is one."""
    try:
        context = ssl.create_default_context(cafile=mqtt.ca_certificate)
        if mqtt.client_certificate is not None:
            context.load_cert_chain(mqtt.client_certificate, mqtt.client_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"mqtt: ca_certificate, client_certificate or client_key cannot be used: {error};"
            " `flexway check` says which"
        ) from error
    return context


def restore_adapters(adapters: Mapping[str, DeviceAdapter], rows: Sequence[SetpointRow]) -> None:
    """Tell adapters what devices may know; OpenADR's VTN may answer nobody before."""
    told = [row for row in rows if row.state in _MAY_BE_KNOWN]
    vtn, webhook = adapters.get("openadr"), adapters.get("webhook")
    if vtn is not None:
        from gateway.bootstrap import openadr  # noqa: PLC0415 - a slow library, where it is used

        openadr.restore(vtn, [row.setpoint for row in told])
    if isinstance(webhook, WebhookAdapter):
        webhook.restore(
            acknowledged=[r.setpoint for r in told if r.state is SetpointState.APPLIED],
            doubtful=[r.setpoint for r in told if r.state is not SetpointState.APPLIED],
        )


def check_time(settings: Settings, profiles: Mapping[str, DeviceProfile]) -> None:
    """Refuse simulated time that the shortest lease cannot follow; raises ConfigError."""
    leases = [p.lease_s for p in profiles.values() if p.lease_s > 0]
    if leases:
        check_speed(
            settings.time.speed, _SLOWEST_TIMER_WALL_S, span_market_s=min(leases),
            timer="the shortest lease",
        )  # fmt: skip


def links(adapters: Mapping[str, DeviceAdapter]) -> dict[str, Callable[[], bool]]:
    """Whether each protocol's link is up: the broker's session, the VTN, any Modbus unit."""
    return {protocol: partial(_link_up, adapter) for protocol, adapter in adapters.items()}


def faults(adapters: Mapping[str, DeviceAdapter]) -> dict[str, Callable[[], str]]:
    """Of each protocol that says so why its link is down, in words."""
    return {
        protocol: partial(_fault, adapter)
        for protocol, adapter in adapters.items() if isinstance(adapter, _Explained)
    }  # fmt: skip


def _fault(adapter: _Explained) -> str:
    return adapter.link_fault


def _link_up(adapter: DeviceAdapter) -> bool:
    if isinstance(adapter, _Linked):
        return adapter.link_up
    return any(adapter.connected(profile.device_id) for profile in adapter.profiles())
