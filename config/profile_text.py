"""YAML of a device profile as values, with the line of each key. No I/O.

The safe subset: maps, lists and plain values. Anchors are refused, because a few lines of them
can stand for a billion values; and a key that stands twice, because the parser would take the
last one without a word.
"""

from __future__ import annotations

import itertools
from typing import Any, Final, NamedTuple

import yaml

from config.findings import Finding, Location

_LONGEST: Final = 256 * 1024
"""Characters of a profile."""
_DEEPEST: Final = 64
"""Brackets that are open at once; the parser's time grows with the square of their number."""


class Parsed(NamedTuple):
    """What a text holds."""

    data: Any
    lines: dict[Location, int]
    """1-based line of every key and item."""
    findings: list[Finding]


def parse(text: str) -> Parsed:
    """Read a profile's text; what is wrong with it as YAML stands in the findings."""
    if len(text) > _LONGEST or _depth(text) > _DEEPEST:
        found = Finding(
            location=("",), message="this is too long, or nested too deeply, for a device profile",
            remedy=f"it has at most {_LONGEST} characters and {_DEEPEST} brackets within another",
        )  # fmt: skip
        return Parsed(None, {}, [found])
    try:
        return _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        lines: dict[Location, int] = {} if mark is None else {("",): mark.line + 1}
        problem = error.problem or error.context or "it cannot be read"
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        lines, problem = {}, str(error) or type(error).__name__
    found = Finding(
        location=("",), message=f"not YAML: {problem}",
        remedy="a key and its value are `key: value`, and what belongs together is indented alike",
    )  # fmt: skip
    return Parsed(None, lines, [found])


def _depth(text: str) -> int:
    """Brackets that are open at once at most; those in quotes are counted as well."""
    steps = (1 if char in "[{" else -1 for char in text if char in "[]{}")
    return max(itertools.accumulate(steps), default=0)


def _compose(text: str) -> Parsed:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        walk = _Walk(loader)
        data = None if root is None else walk.value(root, ())
        return Parsed(data, walk.lines, walk.findings)
    finally:
        loader.dispose()


class _Walk:
    """Goes through the nodes once; a node that comes again is an anchor's alias."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self.lines: dict[Location, int] = {}
        self.findings: list[Finding] = []
        self._loader = loader
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, location: Location) -> Any:
        """The node as a plain value."""
        self.lines.setdefault(location, node.start_mark.line + 1)
        if id(node) in self._seen:
            self._wrong(location, "anchors and aliases are not taken", "write it out")
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*location, n)) for n, item in enumerate(node.value)]
        return self._scalar(node, location)

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, location)
            if key is None:
                continue
            here = (*location, key)
            if key in found:
                self.lines[here] = key_node.start_mark.line + 1
                self._wrong(here, "it stands here twice", "keep one of the two")
                continue
            self.lines[here] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, here)
        return found

    def _key(self, node: yaml.Node, location: Location) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:merge":
            return str(node.value)  # as it is written: `0xAA`, and `on` is no boolean here
        self.lines.setdefault((*location, "?"), node.start_mark.line + 1)
        self._wrong((*location, "?"), "this is no key", "a key is one word before a colon")
        return None

    def _scalar(self, node: yaml.Node, location: Location) -> Any:
        value = self._loader.construct_object(node, deep=True)
        if value is None or isinstance(value, str | int | float):
            return value
        self._wrong(location, f"{node.value!r} is a date or of a kind of its own", "quote it")
        return None

    def _wrong(self, location: Location, message: str, remedy: str) -> None:
        self.findings.append(Finding(location=location, message=message, remedy=remedy))
