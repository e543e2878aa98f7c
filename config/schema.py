"""Looking up keys in the settings models: which exist at a place, and which is nearest."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from config.findings import Location


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, alone, optional or as a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if (found := inner_model(argument)) is not None:
            return found
    return None


def is_list(annotation: Any) -> bool:
    """Whether a field holds several values."""
    return get_origin(annotation) in {tuple, list}


def is_optional(annotation: Any) -> bool:
    """Whether a field may be left without a value."""
    union = get_origin(annotation) in {typing.Union, types.UnionType}
    return union and type(None) in get_args(annotation)


def options(annotation: Any) -> tuple[Any, ...]:
    """The values of a field that has only a few; empty for others."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def names_at(model: type[BaseModel], location: Location) -> list[str]:
    """Keys that are known in the table at `location`; empty where there is no such table.

    In a map of tables the name of each is its own.
    """
    current: type[BaseModel] | None = model
    named = False
    for part in location:
        if current is None:
            return []
        if isinstance(part, int) or named:
            named = False
            continue
        field = current.model_fields.get(part)
        current = None if field is None else inner_model(field.annotation)
        named = field is not None and get_origin(field.annotation) is dict
    return [] if current is None else list(current.model_fields)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the nearest known name, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known keys: {', '.join(sorted(names))}" if names else "leave it out"
