"""What settings have to be with each other: rules that look at values only, never at files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from config.controls import unfit_controls
from config.findings import Finding, Location, Severity
from config.modbus import unfit_modbus, ungoverned
from config.servers import is_loopback, unfit_servers
from config.settings import ProfileSettings, Settings
from config.sparkplug import sparkplug_findings

Rule = Callable[[Settings], Iterator[Finding]]
_REFRESHED = ("revert_timer", "time_to_live", "heartbeat", "watchdog")
"""Leases that the gateway refreshes: they need a length, longer than the telemetry interval."""
_IN_TOPIC = "+#/ "
_WILDCARD = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, never bound


class Bound(NamedTuple):
    """A device of some protocol and where it stands in the settings."""

    location: Location
    device_id: str
    organisation: str
    """Whose it is; empty where the configuration does not say."""
    profile: ProfileSettings
    driven: bool
    """Whether it is ever sent a setpoint: a meter is not."""


def devices_of(settings: Settings) -> Iterator[Bound]:
    """Every device of every protocol: whatever list holds items with an id and a profile."""
    for section in type(settings).model_fields:
        table = getattr(settings, section)
        for key in getattr(type(table), "model_fields", ()):
            items = getattr(table, key)
            for number, item in enumerate(items if isinstance(items, tuple) else ()):
                profile = getattr(item, "profile", None)
                if isinstance(profile, ProfileSettings):
                    driven = getattr(item, "role", "") != "meter" and getattr(item, "driven", True)
                    location = (section, key, number)
                    yield Bound(location, item.device_id, item.organisation, profile, driven)


def broken_rules(settings: Settings) -> list[Finding]:
    """Everything that does not go together, in the order of the rules."""
    return [finding for rule in _RULES for finding in rule(settings)]


def _safety(settings: Settings) -> Iterator[Finding]:
    """Plain text needs a lab, and a lab stays on loopback."""
    api, openadr = settings.api, settings.openadr
    if settings.lab:
        for section, host in (("api", api.host), ("openadr", openadr.host)):
            if not is_loopback(host):
                yield Finding(
                    location=(section, "host"), message=f"{host!r} can be reached from outside",
                    remedy="lab = true allows loopback addresses only: 127.0.0.1, or lab = false",
                )  # fmt: skip
        return
    if api.tls_certificate is None or api.tls_key is None:
        yield Finding(
            location=("api",), message="api.tls_certificate and api.tls_key are missing",
            remedy="give both, or set lab = true on a loopback address",
        )  # fmt: skip
    if settings.mqtt.devices and not settings.mqtt.tls:
        yield Finding(
            location=("mqtt", "tls"), message="mqtt.tls = false needs lab = true",
            remedy="take the line away and give ca_certificate",
        )  # fmt: skip
    if openadr.vens and None in {
        openadr.tls_certificate, openadr.tls_key, openadr.ca_certificate
    }:  # fmt: skip
        yield Finding(
            location=("openadr",),
            message="tls_certificate, tls_key or ca_certificate is missing",
            remedy="VENs are served over TLS only: give all three",
        )


def _owners(settings: Settings) -> Iterator[Finding]:
    """What is bound to nobody belongs to whoever registers it first."""
    for bound in devices_of(settings) if not settings.lab else ():
        if not bound.organisation:
            yield Finding(
                location=(*bound.location, "organisation"),
                message=f"{bound.device_id} belongs to nobody",
                remedy="name the organisation that may register it: any other could, too",
            )  # fmt: skip


def _profiles(settings: Settings) -> Iterator[Finding]:
    for bound in devices_of(settings):
        yield from _profile(bound)
        if bound.location[0] != "modbus":
            yield from ungoverned(bound.profile, (*bound.location, "profile"))


def _profile(bound: Bound) -> Iterator[Finding]:
    profile, location = bound.profile, (*bound.location, "profile")
    if profile.min_kw > profile.max_kw:
        yield Finding(
            location=(*location, "min_kw"),
            message=f"min_kw {profile.min_kw:g} is above max_kw {profile.max_kw:g}",
            remedy="power injects when positive: a charger of 7 kW has min_kw = -7, max_kw = 0",
        )
    elif profile.fallback_kw is not None and not (
        profile.min_kw <= profile.fallback_kw <= profile.max_kw
    ):
        yield Finding(
            location=(*location, "fallback_kw"),
            message=f"{profile.fallback_kw:g} kW is outside {profile.min_kw:g} to "
            f"{profile.max_kw:g} kW",
            remedy="give a power that the device may have",
        )
    if profile.min_on_kw > max(-profile.min_kw, profile.max_kw, 0.0):
        yield Finding(
            location=(*location, "min_on_kw"),
            message=f"{profile.min_on_kw:g} kW is more than the device can have: "
            f"{profile.min_kw:g} to {profile.max_kw:g} kW",
            remedy="give the least power at which it runs, positive whichever way that is",
        )
    if profile.lease in _REFRESHED:
        yield from _lease(profile, location)
    if bound.driven and profile.lease == "none" and profile.fallback_kw is None:
        yield Finding(
            location=location, severity=Severity.WARNING,
            message=f"{bound.device_id} has neither a lease nor a fallback",
            remedy="it is refused for dispatch until it has lease and lease_s, or fallback_kw",
        )  # fmt: skip


def _lease(profile: ProfileSettings, location: Location) -> Iterator[Finding]:
    if profile.lease_s <= 0:
        yield Finding(
            location=(*location, "lease_s"), message=f"lease = {profile.lease!r} without lease_s",
            remedy="say after how many seconds the device falls back on its own",
        )  # fmt: skip
    elif profile.lease_s <= profile.telemetry_s:
        yield Finding(
            location=(*location, "lease_s"),
            message=f"a lease of {profile.lease_s:g} s is not longer than the telemetry interval "
            f"of {profile.telemetry_s:g} s",
            remedy="make lease_s several times telemetry_s: it would lapse unseen",
        )


def _unique_devices(settings: Settings) -> Iterator[Finding]:
    first: dict[str, Location] = {}
    for bound in devices_of(settings):
        if bound.device_id in first:
            other = ".".join(map(str, first[bound.device_id]))
            yield Finding(
                location=(*bound.location, "device_id"),
                message=f"{bound.device_id!r} is bound twice, here and at {other}",
                remedy="give each device one binding and a name of its own",
            )
        first.setdefault(bound.device_id, bound.location)


def _unique_clients(settings: Settings) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for number, client in enumerate(settings.api.clients):
        if client.token_sha256 in first:
            yield Finding(
                location=("api", "clients", number, "token_sha256"),
                message=f"the token of client {first[client.token_sha256]} again",
                remedy="give each client a token of its own: one token has one owner",
            )
        first.setdefault(client.token_sha256, number)


def _time(settings: Settings) -> Iterator[Finding]:
    time = settings.time
    if not settings.lab and (time.speed != 1.0 or time.market_epoch or time.wall_epoch):
        key = "speed" if time.speed != 1.0 else "market_epoch"
        yield Finding(
            location=("time", key), message="simulated time needs lab = true",
            remedy="take the [time] table away: a site runs on the real clock",
        )  # fmt: skip
    if time.wall_epoch is not None and time.begins_by is not None:
        yield Finding(
            location=("time", "begins_by"), message="wall_epoch says already when time begins",
            remedy="give one of the two",
        )  # fmt: skip
    elif (time.market_epoch is None) != (time.wall_epoch is None and time.begins_by is None):
        yield Finding(
            location=("time",), message="market_epoch and wall_epoch go together",
            remedy="give both or neither; begins_by may stand in for wall_epoch",
        )  # fmt: skip
    elif time.market_epoch is not None and time.market_epoch.tzinfo is None:
        yield Finding(
            location=("time", "market_epoch"), message="it has no time zone",
            remedy="write 2026-01-31T12:00:00Z",
        )  # fmt: skip


def _market(settings: Settings) -> Iterator[Finding]:
    try:
        ZoneInfo(settings.market.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield Finding(
            location=("market", "timezone"),
            message=f"{settings.market.timezone!r} is no time zone",
            remedy="write one of the IANA database, such as Europe/Berlin",
        )


def _ports(settings: Settings) -> Iterator[Finding]:
    api, openadr = settings.api, settings.openadr
    if not settings.openadr.vens or api.port == 0 or api.port != openadr.port:
        return
    if api.host == openadr.host or {api.host, openadr.host} & set(_WILDCARD):
        yield Finding(
            location=("openadr", "port"), message=f"port {openadr.port} is the API's as well",
            remedy="give the VTN a port of its own, such as 8081",
        )  # fmt: skip


def _mqtt(settings: Settings) -> Iterator[Finding]:
    mqtt = settings.mqtt
    for number, device in enumerate(mqtt.devices):
        for key, name in (("organisation", device.organisation), ("device_id", device.device_id)):
            if not name or set(name) & set(_IN_TOPIC):
                yield Finding(
                    location=("mqtt", "devices", number, key),
                    message=f"{name!r} cannot stand in a topic",
                    remedy="no slash, +, # or space, and not empty",
                )
    if not mqtt.devices:
        return
    yield from _client_certificate(settings)
    if settings.lab:
        return
    if mqtt.username and mqtt.password_file is None:
        yield Finding(
            location=("mqtt", "username"), message="a username without password_file",
            remedy="put the password into a file of mode 0600 and name it",
        )  # fmt: skip
    if not mqtt.username and mqtt.client_certificate is None:
        yield Finding(
            location=("mqtt",), message="the gateway logs in without a name",
            remedy="give username and password_file, or client_certificate and client_key: a "
            "broker that lets anybody in is no broker for a site", severity=Severity.WARNING,
        )  # fmt: skip


def _client_certificate(settings: Settings) -> Iterator[Finding]:
    mqtt = settings.mqtt
    if (mqtt.client_certificate is None) != (mqtt.client_key is None):
        key = "client_key" if mqtt.client_certificate is None else "client_certificate"
        yield Finding(
            location=("mqtt", key), message="client_certificate and client_key go together",
            remedy="give both or neither",
        )  # fmt: skip
    elif mqtt.client_certificate is not None and not mqtt.tls:
        yield Finding(
            location=("mqtt", "client_certificate"),
            message="a certificate is shown over TLS only, and mqtt.tls is false",
            remedy="take tls = false away, or both keys of the certificate",
        )


def _vens(settings: Settings) -> Iterator[Finding]:
    for key in ("ven_name", "fingerprint"):
        seen: set[str] = set()
        for number, ven in enumerate(settings.openadr.vens):
            value: str = getattr(ven, key)
            location: Location = ("openadr", "vens", number, key)
            if value and value in seen:
                yield Finding(
                    location=location, message=f"{value!r} is another VEN's as well",
                    remedy="VENs are told apart by it: each needs its own",
                )  # fmt: skip
            if key == "fingerprint" and not value and not settings.lab:
                yield Finding(
                    location=location, message=f"VEN {ven.ven_name} has no fingerprint",
                    remedy="give the last ten bytes of its certificate's SHA-256 as AA:BB:..",
                )  # fmt: skip
            seen.add(value)


_RULES: tuple[Rule, ...] = (
    _safety, _time, _market, unfit_servers, _ports, _unique_clients, _unique_devices, _owners,
    _profiles, unfit_modbus, unfit_controls, _mqtt, sparkplug_findings, _vens,
)  # fmt: skip
