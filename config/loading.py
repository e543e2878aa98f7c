"""Reading settings: defaults, then the TOML file, then the environment.

Every error names where it stands (file and line, or the variable), the key, what is
wrong and what to do about it.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from config.environment import overlay
from config.findings import Finding, Location, Severity, Sources
from config.lines import LineNumbers
from config.rules import broken_rules
from config.schema import names_at, nearest
from config.settings import ModbusSettings, Settings, StoreSettings
from marketplace_core.errors import ConfigError

_LINE = re.compile(r"\(at line (\d+)")
_SECRET = ("token", "password", "secret")
"""What stands under such a name is never repeated: it may be the secret itself by mistake."""
_FORM = "config/default.toml shows its form"
_REMEDIES = {
    "missing": "add it here",
    "greater_than": "give a number above {gt}",
    "greater_than_equal": "give a number of at least {ge}",
    "less_than_equal": "give a number of at most {le}",
    "literal_error": "write one of {expected}",
    "string_type": "write it in quotes",
    "bool_parsing": "write true or false",
    "int_parsing": "write a whole number, without quotes",
    "float_parsing": "write a number, without quotes",
    "string_pattern_mismatch": "it has to match {pattern}",
    "datetime_from_date_parsing": "write 2026-01-31T12:00:00Z",
    "tuple_type": "write a list: [[...]] tables, or [ ... ]",
    "model_type": "write a table",
}


@dataclass(frozen=True)
class Loaded:
    """What reading a file gave."""

    settings: Settings | None
    """None when a value is of the wrong kind; the findings say which."""
    findings: tuple[Finding, ...]
    sources: Sources

    def refuse(self, findings: Sequence[Finding]) -> None:
        """Raise ConfigError with every finding that keeps the service from starting."""
        stopping = [f for f in findings if f.stops and f.severity is Severity.ERROR]
        if stopping:
            raise ConfigError("\n".join(map(self.sources.explain, stopping)))


def load_settings(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings that can be used; relative paths count from the file's folder.

    Raises:
        ConfigError: says every key that is wrong and what to do about it.
    """
    loaded = read_settings(path, os.environ if environ is None else environ)
    loaded.refuse(loaded.findings)
    if loaded.settings is None:
        raise ConfigError(f"{path}: it cannot be used")
    return loaded.settings


def read_settings(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Read a file and the environment over it; never raises for what they hold."""
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return _unreadable(path, error)
    merged, variables, refused = overlay(data, environ)
    sources = Sources(str(path), LineNumbers(text), variables)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        wrong = [explain(item, Settings, _FORM) for item in error.errors()]
        return Loaded(None, (*refused, *wrong), sources)
    resolved = _resolve(settings, path.resolve().parent)
    return Loaded(resolved, (*refused, *broken_rules(resolved)), sources)


def _unreadable(path: Path, error: Exception) -> Loaded:
    if isinstance(error, FileNotFoundError):
        message, remedy = "no such file", "`flexway serve --config FILE`"
    elif isinstance(error, OSError):
        message, remedy = f"cannot be read: {error.strerror}", "check its owner and mode"
    else:
        message, remedy = f"not TOML: {error}", "strings are quoted, tables stand in brackets"
    line = _LINE.search(str(error))
    lines: dict[Location, int] = {("",): int(line[1])} if line else {}
    finding = Finding(location=("",), message=message, remedy=remedy)
    return Loaded(None, (finding,), Sources(str(path), lines, {}))


def explain(item: ErrorDetails, model: type[BaseModel], form: str) -> Finding:
    """What a model's check found, as a person is told it; `form` says where to look it up."""
    location, kind = item["loc"], item["type"]
    if kind == "extra_forbidden":
        hint = nearest(str(location[-1]), names_at(model, location[:-1]))
        return Finding(location=location, message="unknown key", remedy=hint)
    message = item["msg"]
    may_be_shown = not any(word in str(location[-1:]) for word in _SECRET)
    if kind != "missing" and may_be_shown and isinstance(item["input"], str | int | float):
        message = f"{message}, not {item['input']!r}"
    remedy = _REMEDIES.get(kind, form)
    return Finding(
        location=location, message=message, remedy=remedy.format_map(item.get("ctx", {}))
    )


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
    updates["modbus"] = _resolve_profiles(updates.get("modbus", settings.modbus), base)
    store = updates.get("store", settings.store)
    updates["store"] = store.model_copy(update=_resolve_store(store, base))
    return settings.model_copy(update=updates)


def _resolve_profiles(modbus: ModbusSettings, base: Path) -> ModbusSettings:
    """Device profiles that are files of the site's own."""
    devices = tuple(
        device.model_copy(update={"device_profile": str(base / device.device_profile)})
        if names_a_file(device.device_profile) else device
        for device in modbus.devices
    )  # fmt: skip
    return modbus.model_copy(update={"devices": devices})


def names_a_file(device_profile: str) -> bool:
    """Whether a `device_profile` is a file's path, and not the name of a shipped profile."""
    return device_profile.endswith((".yaml", ".yml")) or "/" in device_profile


def _resolve_store(store: StoreSettings, base: Path) -> dict[str, str]:
    prefix = "sqlite:///"
    found: dict[str, str] = {}
    location = store.database.removeprefix(prefix)
    if store.database.startswith(prefix) and not location.startswith("/"):
        found["database"] = f"{prefix}{base / location}"
    if "://" not in store.readings:
        found["readings"] = str(base / store.readings)
    return found
