"""Every key, its default and its meaning as TOML: `python -m config.reference`.

`config/default.toml` is what this prints; a test holds the one to the other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from config.schema import inner_model, is_list, options
from config.settings import Settings

_HEAD = """\
# Every setting of Flexway with its default. Copy the lines that a site changes, no more.
# Each key can also come from the environment: FLEXWAY_API__PORT=8443 (docs/configuration.md).
# Made by `python -m config.reference`: change config/settings.py instead.
"""


def reference() -> str:
    """The annotated defaults."""
    return _HEAD + "\n".join(_table(Settings, "")) + "\n"


def _table(model: type[BaseModel], path: str) -> Iterator[str]:
    below: list[tuple[str, FieldInfo]] = []
    for name, field in model.model_fields.items():
        if inner_model(field.annotation) is None:
            yield from _key(name, field, commented=False)
        else:
            below.append((name, field))
    for name, field in below:
        inner = inner_model(field.annotation)
        if inner is None:
            continue
        here = f"{path}.{name}" if path else name
        yield ""
        yield f"# {_sentence(inner.__doc__)}"
        if is_list(field.annotation):
            yield from _example(inner, here)
        else:
            yield f"[{here}]"
            yield from _table(inner, here)


def _example(model: type[BaseModel], path: str) -> Iterator[str]:
    """An array of tables has no default: shown in comments."""
    yield f"# [[{path}]]"
    below: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        inner = inner_model(field.annotation)
        if inner is None:
            yield from _key(name, field, commented=True)
        else:
            below.append((name, inner))
    for name, inner in below:
        yield "#"
        yield f"# [{path}.{name}]"
        for key, field in inner.model_fields.items():
            yield from _key(key, field, commented=True)


def _key(name: str, field: FieldInfo, *, commented: bool) -> Iterator[str]:
    notes = [_sentence(field.description)] if field.description else []
    if choices := options(field.annotation):
        notes.append("One of " + ", ".join(map(_value, choices)) + ".")
    for note in notes:
        yield f"# {note}"
    if field.default is PydanticUndefined:
        yield f"# {name} =    # required"
    elif field.default is None:
        yield f"# {name} =    # not set"
    else:
        yield f"{'# ' if commented else ''}{name} = {_value(field.default)}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return json.dumps(list(value))
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    sys.stdout.write(reference())
