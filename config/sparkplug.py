"""What the settings of Sparkplug devices have to be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from config.findings import Finding, Location
from config.settings import MqttDeviceSettings, Settings

_IN_TOPIC: Final = "+#/\0"
_COUNTED_DOWN: Final = ("revert_timer", "time_to_live")
"""Leases that a device keeps by itself, so that something has to tell it."""


def sparkplug_findings(settings: Settings) -> Iterator[Finding]:
    """Keys of Sparkplug where they belong, and a way back for whatever is driven."""
    mqtt = settings.mqtt
    if not mqtt.sparkplug_host or set(mqtt.sparkplug_host) & set(_IN_TOPIC):
        yield _not_in_topic(("mqtt", "sparkplug_host"), mqtt.sparkplug_host)
    seen: dict[tuple[str, str, str], str] = {}
    for number, device in enumerate(mqtt.devices):
        here: Location = ("mqtt", "devices", number)
        if device.dialect == "flexway":
            yield from _left_over(device, here)
            continue
        yield from _names(device, here)
        yield from _metrics(device, here)
        yield from _way_back(device, here)
        place = (device.group, device.edge_node, device.sparkplug_device)
        if place in seen:
            yield Finding(
                location=(*here, "sparkplug_device"),
                message=f"{'/'.join(place)} is {seen[place]}'s as well",
                remedy="bind each Sparkplug device once",
            )
        seen.setdefault(place, device.device_id)


def _left_over(device: MqttDeviceSettings, here: Location) -> Iterator[Finding]:
    for key in ("group", "edge_node", "sparkplug_device", "metrics"):
        if getattr(device, key) != type(device).model_fields[key].default:
            yield Finding(
                location=(*here, key), message=f"{key} means nothing to our own dialect",
                remedy='add dialect = "sparkplug", or take the line away',
            )  # fmt: skip


def _names(device: MqttDeviceSettings, here: Location) -> Iterator[Finding]:
    for key in ("group", "edge_node", "sparkplug_device"):
        name: str = getattr(device, key)
        empty = not name and key != "sparkplug_device"
        if empty or set(name) & set(_IN_TOPIC):
            yield _not_in_topic((*here, key), name)


def _metrics(device: MqttDeviceSettings, here: Location) -> Iterator[Finding]:
    metrics = device.metrics
    if metrics.power is None and metrics.setpoint is None:
        yield Finding(
            location=(*here, "metrics"), message="neither power nor setpoint has a metric",
            remedy='power = { metric = "NAME", scale = 0.001 }',
        )  # fmt: skip
    for role in type(metrics).model_fields:
        meaning = getattr(metrics, role)
        if meaning is not None and not (meaning.scale and math.isfinite(meaning.scale)):
            yield Finding(
                location=(*here, "metrics", role, "scale"),
                message=f"{meaning.scale!r} is no scale",
                remedy="a number that is not 0: 0.001 for watts",
            )


def _way_back(device: MqttDeviceSettings, here: Location) -> Iterator[Finding]:
    """Silence is safe: a lease that is promised is one that the device is told of."""
    metrics, profile = device.metrics, device.profile
    if metrics.setpoint is None:
        return
    if profile.lease in _COUNTED_DOWN and metrics.lease is None and metrics.heartbeat is None:
        yield Finding(
            location=(*here, "profile", "lease"),
            message=f"{profile.lease} needs a lease or heartbeat metric",
            remedy='name the metric that the device counts down, or lease = "watchdog"',
        )
    if profile.lease == "event_end":
        yield Finding(
            location=(*here, "profile", "lease"), message="Sparkplug has no events that end",
            remedy='lease = "watchdog"',
        )  # fmt: skip
    if metrics.enable is None and profile.fallback_kw is None:
        yield Finding(
            location=(*here, "metrics"), message="nothing ends a setpoint",
            remedy="name the enable metric, or give profile.fallback_kw, which is written then",
        )  # fmt: skip


def _not_in_topic(location: Location, name: str) -> Finding:
    return Finding(
        location=location, message=f"{name!r} cannot stand in a topic",
        remedy="no slash, + or #, and not empty",
    )  # fmt: skip
