"""Device profiles: those that come with Flexway, and a site's own, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from config.findings import Finding, Severity, Sources
from config.loading import explain, names_a_file
from config.profile_model import ProfileDocument
from config.profile_rules import broken_rules
from config.profile_text import parse
from config.schema import nearest
from marketplace_core.errors import ConfigError

_FORM: Final = "config/device_profiles/schema.json says its form, docs/modbus.md shows an example"


@dataclass(frozen=True)
class LoadedProfile:
    """What reading a profile gave."""

    name: str
    """Of a shipped one its name, of another its path."""
    profile: ProfileDocument | None
    """None when it cannot be used; the findings say why."""
    findings: tuple[Finding, ...]
    sources: Sources

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that keep it from being used."""
        return tuple(f for f in self.findings if f.severity is Severity.ERROR)

    def required(self) -> ProfileDocument:
        """The profile; ConfigError with every error when it cannot be used."""
        if self.profile is None or self.errors:
            raise ConfigError("\n".join(map(self.sources.explain, self.errors)))
        return self.profile


@cache
def shipped() -> tuple[str, ...]:
    """Names of the profiles that come with Flexway, sorted."""
    folder = files("config") / "device_profiles"
    names = (item.name for item in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def read_profile(name: str) -> LoadedProfile:
    """A shipped profile by name, or a file by path; never raises for what it holds."""
    if names_a_file(name):
        return _read_file(Path(name))
    if name not in shipped():
        found = Finding(
            location=("",), message=f"no device profile {name!r} comes with Flexway",
            remedy=f"{nearest(name, shipped())} A file of your own is named by its path, "
            "such as ./mine.yaml",
        )  # fmt: skip
        return LoadedProfile(name, None, (found,), Sources(name, {}, {}))
    return _shipped(name)


@cache
def _shipped(name: str) -> LoadedProfile:
    resource = files("config") / "device_profiles" / f"{name}.yaml"
    return check_profile(name, f"{name}.yaml", resource.read_text(encoding="utf-8"))


def _read_file(path: Path) -> LoadedProfile:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        message, remedy = "no such file", "correct the path: it counts from the settings' folder"
    except (OSError, UnicodeDecodeError) as error:
        message, remedy = f"cannot be read: {error}", "it has to be a readable file in UTF-8"
    else:
        return check_profile(str(path), str(path), text)
    found = Finding(location=("",), message=message, remedy=remedy)
    return LoadedProfile(str(path), None, (found,), Sources(str(path), {}, {}))


def check_profile(name: str, file: str, text: str) -> LoadedProfile:
    """Check a profile's text; every finding at once, each with its line."""
    parsed = parse(text)
    sources = Sources(file, parsed.lines, {})
    findings = list(parsed.findings)
    if not isinstance(parsed.data, Mapping):
        if not findings:
            remedy = f"it begins with title, manufacturer, models; {_FORM}"
            findings.append(Finding(location=("",), message="it holds no keys", remedy=remedy))
        return LoadedProfile(name, None, tuple(findings), sources)
    try:
        profile = ProfileDocument.model_validate(parsed.data)
    except ValidationError as error:
        findings += [explain(item, ProfileDocument, _FORM) for item in error.errors()]
        return LoadedProfile(name, None, tuple(findings), sources)
    findings += broken_rules(profile)
    return LoadedProfile(name, profile, tuple(findings), sources)
