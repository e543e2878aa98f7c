"""Writing settings as TOML, for commands that make a configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_BARE_KEY: Final = re.compile("[A-Za-z0-9_-]+")


def to_toml(settings: Mapping[str, Any]) -> str:
    """Nested mappings as TOML; None is left out, lists of mappings become arrays of tables."""
    return "\n".join(_table(settings, ())) + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    nested: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, Mapping) or _is_tables(value):
            nested.append((key, value))
        elif value is not None:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in nested:
        here = (*path, key)
        name = ".".join(map(_key, here))
        for item in value if _is_tables(value) else ():
            yield f"\n[[{name}]]"
            yield from _table(item, here)
        if isinstance(value, Mapping):
            yield f"\n[{name}]"
            yield from _table(value, here)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _value(key)


def _value(value: object) -> str:
    # JSON's strings, numbers, booleans and arrays of them are TOML's too, but for its
    # surrogate pairs and a bare DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)
