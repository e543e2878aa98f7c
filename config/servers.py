"""Addresses of the servers behind the gateway: encrypted off this machine, without secrets."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, parse_qs, urlsplit

from config.settings import Settings
from marketplace_core.errors import ConfigError

_VERIFIED = {"verify-full", "verify-ca"}
_DATABASES = ("sqlite", "postgresql", "postgresql+psycopg")


def check_servers(settings: Settings) -> None:
    """Refuse addresses that are unknown, hold a password, or leave this machine in plain text."""
    store = settings.store
    _check_database("store.database", store.database, "store.database_password_file")
    if "://" in store.readings:
        _check_database("store.readings", store.readings, "store.readings_password_file")
        if store.readings.startswith("sqlite"):
            raise ConfigError("store.readings: give the file's path alone, without sqlite:///")
    if "redis" in {settings.bus.kind, settings.bus.live_state}:
        _check_redis(settings.bus.url)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_database(key: str, url: str, password_key: str) -> None:
    parsed = urlsplit(url)
    if parsed.scheme not in _DATABASES:
        raise ConfigError(f"{key}: {parsed.scheme or 'no scheme'}: give sqlite or postgresql")
    if parsed.scheme == "sqlite":
        return
    query = parse_qs(parsed.query)
    if parsed.password is not None or "password" in query:
        raise ConfigError(f"{key} holds a password: put it into a file, {password_key}")
    hosts = [host for host in (parsed.hostname, *query.get("host", ())) if host]
    encrypted = _VERIFIED & set(query.get("sslmode", ()))
    if not encrypted and not all(host.startswith("/") or is_loopback(host) for host in hosts):
        raise ConfigError(
            f"{key}: {', '.join(hosts)} is another machine: add "
            "?sslmode=verify-full&sslrootcert=FILE"
        )


def _check_redis(url: str) -> None:
    parsed: SplitResult = urlsplit(url)
    if parsed.scheme not in {"redis", "rediss", "unix"}:
        raise ConfigError(f"bus.url: {parsed.scheme or 'no scheme'}: give redis, rediss or unix")
    if parsed.password is not None or "password" in parse_qs(parsed.query):
        raise ConfigError("bus.url holds a password: put it into a file, bus.password_file")
    if parsed.scheme == "redis" and not is_loopback(parsed.hostname or ""):
        raise ConfigError(f"bus.url: {parsed.hostname} is another machine: use rediss://")
