"""`FLEXWAY_SECTION__KEY=value` over the file: two underscores go one level down.

Items of a list are named by number (`FLEXWAY_MODBUS__DEVICES__0__HOST`), or the whole
list is given as JSON. A variable that no setting answers to is an error, not a shrug.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

from config.findings import Finding, Location
from config.schema import inner_model, is_list, is_optional, nearest, options
from config.settings import Settings

PREFIX: Final = "FLEXWAY_"
_LEVEL: Final = "__"


class _RefusedVariable(Exception):  # noqa: N818 - becomes a finding, never leaves this module
    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def overlay(
    data: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[Location, str], list[Finding]]:
    """The file's data with the environment over it, which variable set what, what is wrong."""
    merged = copy.deepcopy(dict(data))
    variables: dict[Location, str] = {}
    findings: list[Finding] = []
    for name in sorted((n for n in environ if n.startswith(PREFIX)), key=_by_number):
        try:
            location = _apply(merged, name, environ[name])
        except _RefusedVariable as refused:
            findings.append(Finding(location=(name,), message=str(refused), remedy=refused.remedy))
            location = (name,)
        variables[location] = name
    return merged, variables, findings


def variable_name(location: Location) -> str:
    """The variable that sets a key."""
    return PREFIX + _LEVEL.join(str(part).upper() for part in location)


def _by_number(name: str) -> list[tuple[int, int, str]]:
    """Items of a list in the order of their numbers: 2 before 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in name.split(_LEVEL)]


def _apply(target: dict[str, Any], name: str, text: str) -> Location:
    """Put one variable into the data; return the location it set."""
    parts = name.removeprefix(PREFIX).lower().split(_LEVEL)
    here: Any = target
    annotation: Any = Settings
    location: Location = ()
    for depth, part in enumerate(parts):
        key = _key(annotation, part, location, here)
        annotation = _below(annotation, key)
        location = (*location, key)
        if depth == len(parts) - 1:
            _put(here, key, _value(annotation, text))
        elif inner_model(annotation) is None:
            above = variable_name(location)
            raise _RefusedVariable("unknown variable", f"{above} has no keys below it")
        else:
            here = _descend(here, key, annotation)
    return location


def _key(annotation: Any, part: str, location: Location, here: Any) -> str | int:
    if is_list(annotation):
        if not part.isdecimal() or int(part) > len(here):
            numbers = f"0 to {len(here)}"
            raise _RefusedVariable(
                f"{part!r} numbers no item", f"items count from 0 without gaps: {numbers} here"
            )
        return int(part)
    model = inner_model(annotation)
    if model is None or part not in model.model_fields:
        wrong, known = variable_name((*location, part)), _names(model or Settings, location)
        raise _RefusedVariable("unknown variable", nearest(wrong, known))
    return part


def _names(model: type[BaseModel], location: Location) -> Iterator[str]:
    """Every variable below a table, whole lists by their one name."""
    for field, information in model.model_fields.items():
        yield variable_name((*location, field))
        inner = inner_model(information.annotation)
        if inner is not None and not is_list(information.annotation):
            yield from _names(inner, (*location, field))


def _below(annotation: Any, key: str | int) -> Any:
    model = inner_model(annotation)
    if isinstance(key, int) or model is None:
        return model
    return model.model_fields[key].annotation


def _descend(here: Any, key: str | int, annotation: Any) -> Any:
    empty: Any = [] if is_list(annotation) else {}
    if isinstance(here, list):
        if key == len(here):
            here.append(empty)
        below = here[int(key)]
    else:
        below = here.setdefault(key, empty)
    if type(below) is not type(empty):
        raise _RefusedVariable(
            "the file has a plain value where this variable goes into a table",
            "mend the file, or take the variable away",
        )
    return below


def _put(here: Any, key: str | int, value: Any) -> None:
    if isinstance(here, list) and key == len(here):
        here.append(value)
    elif value is None and isinstance(here, dict):
        here.pop(key, None)
    else:
        here[key] = value


def _value(annotation: Any, text: str) -> Any:
    """Text as the field wants it; numbers, booleans and dates are left to the model."""
    if not text and is_optional(annotation):
        return None  # an empty variable takes an optional value away
    for option in options(annotation):
        if str(option) == text:
            return option
    if not is_list(annotation) and not _is_table(annotation):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise _RefusedVariable(
            f"not JSON: {error}", "write the list or table as JSON, or set its keys one by one"
        ) from error


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
