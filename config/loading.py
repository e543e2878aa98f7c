"""Reading settings from TOML, with errors that name the key and the remedy."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from config.servers import check_servers, is_loopback
from config.settings import Settings, StoreSettings
from marketplace_core.errors import ConfigError


def load_settings(path: Path) -> Settings:
    """Read and check a settings file; relative paths in it count from its folder.

    Raises:
        ConfigError: says every key that is wrong and what to do about it.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; `flexway serve --config FILE`") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        lines = [_explain(item["loc"], item["msg"], item["type"]) for item in error.errors()]
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines)) from error
    check_safety(settings)
    return _resolve(settings, path.resolve().parent)


def check_safety(settings: Settings) -> None:
    """Refuse plain text outside a lab, a lab outside loopback, and secrets in addresses."""
    check_servers(settings)
    if settings.lab:
        for key, host in (("api.host", settings.api.host), ("openadr.host", settings.openadr.host)):
            if not is_loopback(host):
                raise ConfigError(f"{key} = {host!r}: lab = true allows loopback addresses only")
        return
    if settings.api.tls_certificate is None or settings.api.tls_key is None:
        raise ConfigError(
            "api.tls_certificate and api.tls_key are missing: give both, or set lab = true on "
            "a loopback address"
        )
    if settings.mqtt.devices and not settings.mqtt.tls:
        raise ConfigError("mqtt.tls = false needs lab = true")
    if settings.openadr.vens and settings.openadr.tls_certificate is None:
        raise ConfigError("openadr.tls_certificate is missing: VENs are served over TLS only")


def _explain(location: Sequence[str | int], message: str, kind: str) -> str:
    key = ".".join(str(part) for part in location)
    if kind != "extra_forbidden":
        return f"{key}: {message}"
    names = _names_at(location[:-1])
    near = difflib.get_close_matches(str(location[-1]), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(names))}"
    return f"{key}: unknown key; {hint}"


def _names_at(location: Sequence[str | int]) -> list[str]:
    model: Any = Settings
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        arguments = getattr(annotation, "__args__", ())
        model = arguments[0] if arguments else annotation
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    return []


def _resolve(settings: Settings, base: Path) -> Settings:
    """Make every relative path absolute, counted from the settings file."""
    updates: dict[str, Any] = {}
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        if not isinstance(section, BaseModel):
            continue
        paths = {
            field: base / value
            for field in type(section).model_fields
            if isinstance(value := getattr(section, field), Path)
        }
        if paths:
            updates[name] = section.model_copy(update=paths)
    store = updates.get("store", settings.store)
    updates["store"] = store.model_copy(update=_resolve_store(store, base))
    return settings.model_copy(update=updates)


def _resolve_store(store: StoreSettings, base: Path) -> dict[str, str]:
    prefix = "sqlite:///"
    found: dict[str, str] = {}
    location = store.database.removeprefix(prefix)
    if store.database.startswith(prefix) and not location.startswith("/"):
        found["database"] = f"{prefix}{base / location}"
    if "://" not in store.readings:
        found["readings"] = str(base / store.readings)
    return found
