"""Addresses of the servers behind the gateway: encrypted off this machine, without secrets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import SplitResult, parse_qs, urlsplit

from config.findings import Finding, Location
from config.settings import Settings

_VERIFIED = {"verify-full", "verify-ca"}
_DATABASES = ("sqlite", "postgresql", "postgresql+psycopg")


def unfit_servers(settings: Settings) -> Iterator[Finding]:
    """Addresses that are unknown, hold a password, or leave this machine in plain text."""
    store = settings.store
    yield from _database(("store", "database"), store.database)
    if "://" in store.readings:
        yield from _database(("store", "readings"), store.readings)
        if store.readings.startswith("sqlite"):
            yield Finding(
                location=("store", "readings"), message="a path is wanted",
                remedy="give the file's path alone, without sqlite:///",
            )  # fmt: skip
    if "redis" in {settings.bus.kind, settings.bus.live_state}:
        yield from _redis(settings.bus.url)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _database(location: Location, url: str) -> Iterator[Finding]:
    parsed = urlsplit(url)
    if parsed.scheme not in _DATABASES:
        yield Finding(
            location=location,
            message=f"{parsed.scheme or 'no scheme'!r} is no database that Flexway knows",
            remedy="give sqlite or postgresql",
        )  # fmt: skip
        return
    if parsed.scheme == "sqlite":
        return
    query = parse_qs(parsed.query)
    if parsed.password is not None or "password" in query:
        name = f"{location[0]}.{location[1]}_password_file"
        yield Finding(
            location=location, message="it holds a password", remedy=f"put it into a file, {name}"
        )
    hosts = [host for host in (parsed.hostname, *query.get("host", ())) if host]
    encrypted = _VERIFIED & set(query.get("sslmode", ()))
    if not encrypted and not all(host.startswith("/") or is_loopback(host) for host in hosts):
        yield Finding(
            location=location, message=f"{', '.join(hosts)} is another machine",
            remedy="add ?sslmode=verify-full&sslrootcert=FILE",
        )  # fmt: skip


def _redis(url: str) -> Iterator[Finding]:
    parsed: SplitResult = urlsplit(url)
    location = ("bus", "url")
    if parsed.scheme not in {"redis", "rediss", "unix"}:
        yield Finding(
            location=location, message=f"{parsed.scheme or 'no scheme'} is no Redis",
            remedy="give redis, rediss or unix",
        )  # fmt: skip
    if parsed.password is not None or "password" in parse_qs(parsed.query):
        yield Finding(
            location=location, message="it holds a password",
            remedy="put it into a file, bus.password_file",
        )  # fmt: skip
    if parsed.scheme == "redis" and not is_loopback(parsed.hostname or ""):
        yield Finding(
            location=location, message=f"{parsed.hostname} is another machine",
            remedy="use rediss://",
        )  # fmt: skip
