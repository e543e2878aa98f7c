"""Files that settings name: secrets, certificates, places that are written to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from config.certificates import authority_findings, pair_findings
from config.device_files import device_profile_findings
from config.findings import Finding, Location, Severity
from config.settings import Settings

_OTHERS: Final = 0o077
"""Mode bits that let somebody else than the owner at a secret."""
_SQLITE: Final = "sqlite:///"
_SERVER: Final = ("tls_certificate", "tls_key")
_CLIENT: Final = ("client_certificate", "client_key")


def file_findings(settings: Settings, now: datetime) -> list[Finding]:
    """Everything wrong with files, read only; `now` judges certificates."""
    return [
        *_tls(settings, now),
        *_secrets(settings),
        *_writable(settings),
        *_roots_apart(settings),
        *device_profile_findings(settings),
    ]


def database_file(settings: Settings) -> Path | None:
    """The market database's file; None when it is no SQLite file."""
    url = settings.store.database
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None


def _tls(settings: Settings, now: datetime) -> Iterator[Finding]:
    api, openadr, mqtt = settings.api, settings.openadr, settings.mqtt
    yield from _pair("api", _SERVER, (api.tls_certificate, api.tls_key), now)
    if openadr.vens:
        yield from _pair("openadr", _SERVER, (openadr.tls_certificate, openadr.tls_key), now)
        yield from _authority(("openadr", "ca_certificate"), openadr.ca_certificate, now)
    if mqtt.devices and mqtt.tls:
        yield from _authority(("mqtt", "ca_certificate"), mqtt.ca_certificate, now)
        yield from _pair("mqtt", _CLIENT, (mqtt.client_certificate, mqtt.client_key), now)


def _pair(
    section: str, keys: tuple[str, str], paths: tuple[Path | None, Path | None], now: datetime
) -> Iterator[Finding]:
    """A certificate and its key; `keys` are their names in the section."""
    certificate, key = paths
    if certificate is None or key is None:
        return
    places: list[tuple[Location, Path]] = [
        ((section, keys[0]), certificate),
        ((section, keys[1]), key),
    ]
    unreadable = [finding for place in places for finding in _readable(*place)]
    yield from unreadable
    if not unreadable:
        yield from _secret(*places[1])
        yield from pair_findings(places[0], places[1], now)


def _authority(location: Location, path: Path | None, now: datetime) -> Iterator[Finding]:
    if path is None:
        return
    unreadable = list(_readable(location, path))
    yield from unreadable or authority_findings(location, path, now)


def _secrets(settings: Settings) -> Iterator[Finding]:
    """Every key that ends in `_file` holds a secret, in whatever section it stands."""
    for section in type(settings).model_fields:
        table = getattr(settings, section)
        for key in getattr(type(table), "model_fields", ()):
            path = getattr(table, key)
            if not key.endswith("_file") or not isinstance(path, Path):
                continue
            location = (section, key)
            unreadable = list(_readable(location, path))
            yield from unreadable
            if not unreadable and not path.read_bytes().strip():
                yield Finding(
                    location=location, message=f"{path} is empty", remedy="write the secret into it"
                )
            if not unreadable:
                yield from _secret(location, path)
    signing_key = settings.store.signing_key
    if signing_key.exists():
        yield from _secret(("store", "signing_key"), signing_key)
    query = dict(parse_qsl(urlsplit(settings.store.database).query))
    if "passfile" in query:
        passfile = Path(query["passfile"])
        unreadable = list(_readable(("store", "database"), passfile))
        yield from unreadable or _secret(("store", "database"), passfile)


def _readable(location: Location, path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield Finding(
            location=location, message=f"{path} does not exist",
            remedy="make it, or correct the path (it counts from the settings file's folder)",
        )  # fmt: skip
    elif not path.is_file() or not os.access(path, os.R_OK):
        yield Finding(
            location=location, message=f"{path} cannot be read",
            remedy="give it to the user that the service runs as, mode 0600",
        )  # fmt: skip


def _secret(location: Location, path: Path) -> Iterator[Finding]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        yield Finding(
            location=location, severity=Severity.WARNING,
            message=f"{path} has mode {mode:04o}: others may read this secret",
            remedy=f"chmod 600 {path}",
        )  # fmt: skip


def _writable(settings: Settings) -> Iterator[Finding]:
    store = settings.store
    places: list[tuple[Location, Path | None]] = [
        (("store", "database"), database_file(settings)),
        (("store", "readings"), None if "://" in store.readings else Path(store.readings)),
        (("store", "roots"), store.roots),
        (("store", "signing_key"), None if store.signing_key.exists() else store.signing_key),
    ]
    if any(device.profile.writes_per_day for device in settings.modbus.devices):
        places.append((("modbus", "writes"), settings.modbus.writes))
    if settings.openadr.vens:
        places.append((("openadr", "state"), settings.openadr.state))
    for location, path in places:
        if path is None:
            continue
        there = path if path.exists() else _nearest(path)
        wrong_kind = path.is_dir() if path.exists() else not there.is_dir()
        if wrong_kind or not os.access(there, os.W_OK):
            yield Finding(
                location=location, message=f"{path} cannot be written ({there} refuses)",
                remedy="make the folder and give it to the user that the service runs as",
            )  # fmt: skip


def _roots_apart(settings: Settings) -> Iterator[Finding]:
    database = database_file(settings)
    if database is None:
        return
    places = [_nearest(path) for path in (database, settings.store.roots)]
    if places[0].stat().st_dev == places[1].stat().st_dev:
        yield Finding(
            location=("store", "roots"), severity=Severity.WARNING,
            message="signed roots lie on the same file system as the database",
            remedy="put them on other storage: who rewrites the one must not reach the other",
        )  # fmt: skip


def _nearest(path: Path) -> Path:
    """What exists nearest above a path."""
    above = path.absolute().parents
    return next((folder for folder in above if folder.exists()), Path("/"))
