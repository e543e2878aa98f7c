"""The programme index as YAML files, with the line of whatever is wrong in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from config.findings import Finding, Location, Sources
from config.schema import nearest
from marketplace_core.errors import ConfigError, RejectedError
from marketplace_core.programmes.programme import Programme, validate_programme

SHIPPED: Final = Path(__file__).parent / "programmes"
_MOST_BYTES: Final = 5_000_000


def load_programmes(paths: Sequence[Path]) -> list[Programme]:
    """Every entry of some files. Raises ConfigError with every finding, file and line."""
    found: list[Programme] = []
    wrong: list[str] = []
    for path in paths:
        programmes, findings = read_programmes(path)
        found += programmes
        wrong += findings
    seen: set[str] = set()
    for each in found:
        if each.id in seen:
            wrong.append(f"{each.id}: stands twice in the index; take one of them out")
        seen.add(each.id)
    if wrong:
        raise ConfigError("\n".join(wrong))
    return found


def shipped_programmes() -> list[Programme]:
    """The entries that come with Flexway."""
    return load_programmes(sorted(SHIPPED.glob("*.yaml")))


def read_programmes(path: Path) -> tuple[list[Programme], list[str]]:
    """The good entries of a file and, one line each, what is wrong with the others."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"{path}: cannot be read: {error}"]
    if len(text) > _MOST_BYTES:
        return [], [f"{path}: above {_MOST_BYTES} characters; split it"]
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        entries = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [], [f"{path}: not YAML: {' '.join(str(error).split())}"]
    if not isinstance(entries, list) or not isinstance(node, yaml.SequenceNode):
        return [], [f"{path}: a list of programmes is expected, each beginning with `- id:`"]
    lines: dict[Location, int] = {}
    _note(node, (), lines)
    sources = Sources(str(path), lines, {})
    found: list[Programme] = []
    wrong: list[str] = []
    for number, entry in enumerate(entries):
        made = _entry(entry, number)
        if isinstance(made, Programme):
            found.append(made)
        else:
            wrong.append(sources.explain(made))
    return found, wrong


def _entry(entry: Any, number: int) -> Programme | Finding:
    unknown = sorted(set(entry) - _FIELDS) if isinstance(entry, dict) else []
    if unknown:
        hint = nearest(unknown[0], _FIELDS)
        return Finding(location=(number, unknown[0]), message="unknown key", remedy=hint)
    try:
        made = msgspec.convert(entry, Programme, strict=True, str_keys=True)
        validate_programme(made)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        return Finding(
            location=(number, *_path(where)), message=message,
            remedy="marketplace_core/programmes/programme.py has its form",
        )  # fmt: skip
    except RejectedError as error:
        return Finding(location=(number, error.field), message=str(error), remedy=error.rule)
    return made


_FIELDS: Final = frozenset(field.name for field in msgspec.structs.fields(Programme))


def _path(where: str) -> Location:
    """`.payments[0].kind` as a location."""
    parts: list[str | int] = []
    for part in where.rstrip("`").replace("[", ".[").split("."):
        if part.startswith("["):
            inner = part.strip("[]")
            if inner.isdigit():
                parts.append(int(inner))
        elif part:
            parts.append(part)
    return tuple(parts)


def _note(node: yaml.Node, location: Location, lines: dict[Location, int]) -> None:
    """The line of every entry and key."""
    lines[location] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _note(item, (*location, number), lines)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _note(value, (*location, str(key.value)), lines)
            lines[(*location, str(key.value))] = key.start_mark.line + 1
