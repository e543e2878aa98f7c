"""Line numbers of TOML keys: the standard parser does not keep them.

A statement is complete when it parses alone, so the grammar stays the parser's business.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from config.findings import Location

_CLOSES = ("]", "}", '"', "'")
"""Last characters of a line that can end a statement of several lines."""


class LineNumbers(Mapping[Location, int]):
    """The 1-based line of every table and key, found when the first of them is asked for.

    A file of ten thousand devices is read again for it, and most files have nothing to explain.
    """

    def __init__(self, text: str) -> None:
        """`text` is a document that parses."""
        self._text = text

    @cached_property
    def _lines(self) -> dict[Location, int]:
        return line_numbers(self._text)

    def __getitem__(self, location: Location) -> int:
        """The line of a key; KeyError when the file does not have it."""
        return self._lines[location]

    def __iter__(self) -> Iterator[Location]:
        """Every table and key."""
        return iter(self._lines)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._lines)


def line_numbers(text: str) -> dict[Location, int]:
    """The 1-based line of every table and key of a document that parses."""
    lines: dict[Location, int] = {}
    arrays: dict[Location, int] = {}
    table: Location = ()
    rows = enumerate(text.replace("\r\n", "\n").split("\n"), start=1)
    for number, row in rows:
        stripped = row.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("["):
            table = _table(stripped, arrays)
            lines.setdefault(table, number)
            lines.setdefault(table[:1], number)
            continue
        for path in _paths(_statement(row, rows)):
            lines.setdefault((*table, *path), number)
    return lines


def _table(header: str, arrays: dict[Location, int]) -> Location:
    """Where a header points, with the number of each array of tables on the way."""
    names, value = list[str](), tomllib.loads(header)
    repeated = False
    while value:
        name, inner = next(iter(value.items()))
        names.append(name)
        repeated = isinstance(inner, list)
        value = inner[0] if isinstance(inner, list) else inner
    location: Location = ()
    for depth, name in enumerate(names, start=1):
        location = (*location, name)
        if repeated and depth == len(names):
            arrays[location] = arrays.get(location, -1) + 1
        if location in arrays:
            location = (*location, arrays[location])
    return location


def _statement(first: str, rows: Iterator[tuple[int, str]]) -> dict[str, Any]:
    """`key = value`, read on until it is whole."""
    text = first
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        for _, row in rows:
            text += f"\n{row}"
            if row.partition("#")[0].rstrip().endswith(_CLOSES) or row.rstrip().endswith(_CLOSES):
                try:
                    return tomllib.loads(text)
                except tomllib.TOMLDecodeError:
                    continue
    return {}


def _paths(value: Any) -> Iterator[Location]:
    """Every key inside a value, at whatever depth."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        yield (key,)
        if isinstance(item, dict | list):
            for path in _paths(item):
                yield (key, *path)
