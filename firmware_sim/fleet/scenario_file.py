"""Scenario files: YAML in, a scenario out, or every mistake with its line and its remedy."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from config.findings import Finding, Location, Sources
from config.schema import nearest
from firmware_sim.fleet.scenario import Fault, Scenario, Selector, bounds, seconds
from marketplace_core.errors import ConfigError

_MOST_BYTES: Final = 1_000_000
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")
_MISSING: Final = re.compile(r"missing required field `([^`]*)`")
_PATH: Final = re.compile(r" - at `\$(.*)`$")
_STEP: Final = re.compile(r"\.([A-Za-z_]+)|\[(\d+)\]")
KINDS: Final = {str(each.__struct_config__.tag): each for each in typing.get_args(Fault)}
"""Of each fault's name its form."""
_SPANS: Final = frozenset({"at", "until", "by", "every", "down"})
"""Keys that may be written with a unit of time."""


class ScenarioError(ConfigError):
    """A scenario file with mistakes; `findings` are one line each."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = findings


def read_scenario(path: Path) -> Scenario:
    """Read and check a file. Raises: ScenarioError with every mistake, `file:line: ...`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ScenarioError([f"{path}: {error.strerror}; name a file that can be read"]) from error
    return parse_scenario(text, str(path))


def parse_scenario(text: bytes, file: str) -> Scenario:
    """Check what a file holds. Raises: ScenarioError."""
    if len(text) > _MOST_BYTES:
        raise ScenarioError([f"{file}: {len(text)} bytes; {_MOST_BYTES} are allowed"])
    lines: dict[Location, int] = {}
    findings: list[Finding] = []
    data = _parsed(text, file, lines, findings)
    entries: list[Any] = []
    if isinstance(data, dict):
        entries = data.get("timeline") or []
        if not isinstance(entries, list):
            findings.append(_finding(("timeline",), "a list is needed", "begin each fault with -"))
            entries = []
    timeline = [_entry(raw, ("timeline", n), findings) for n, raw in enumerate(entries)]
    rest = {**data, "timeline": []} if isinstance(data, dict) else data
    whole: Scenario | None = _converted(rest, Scenario, (), findings)
    if findings or whole is None:
        sources = Sources(file=file, lines=lines, variables={})
        ordered = sorted(findings, key=lambda one: sources.line_of(one.location) or 0)
        raise ScenarioError([sources.explain(one) for one in ordered])
    kept = tuple(entry for entry in timeline if entry is not None)
    return msgspec.structs.replace(whole, timeline=kept)


def _parsed(
    text: bytes, file: str, lines: dict[Location, int], findings: list[Finding]
) -> Any:  # fmt: skip
    """Plain data; where each key stands goes into `lines`."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ScenarioError([f"{file}: aliases (*) are not followed; write the value out"])
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            _note(node, (), lines, findings)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = "" if mark is None else f":{mark.line + 1}"
        remedy = "see docs/simulator.md for an example"
        raise ScenarioError([f"{file}{line}: not YAML: {error.problem}; {remedy}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ScenarioError([f"{file}: not YAML: {error}"]) from error


def _note(
    node: yaml.Node | None, at: Location, lines: dict[Location, int], findings: list[Finding]
) -> None:
    """Write down the line of every key below a node; a key that comes twice is a mistake."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            if here in lines:
                findings.append(_finding(here, "this key stands twice", "keep one of them"))
            lines[here] = key.start_mark.line + 1
            _note(value, here, lines, findings)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[*at, number] = value.start_mark.line + 1
            _note(value, (*at, number), lines, findings)


def _entry(raw: Any, at: Location, findings: list[Finding]) -> Fault | None:
    if not isinstance(raw, dict):
        findings.append(_finding(at, "a fault is needed here", "write `- fault: drop`"))
        return None
    form = KINDS.get(str(raw.get("fault")))
    if form is None:
        said = f"there is no fault {raw['fault']!r}" if "fault" in raw else "`fault` is missing"
        hint = nearest(str(raw.get("fault", "")), KINDS).replace("known keys", "known faults")
        findings.append(_finding((*at, "fault"), said, hint))
        return None
    before = len(findings)
    entry: Fault | None = _converted(raw, form, at, findings)
    if entry is not None:
        findings += _unfit(entry, at)
    return entry if len(findings) == before else None


def _unfit(entry: Fault, at: Location) -> Iterator[Finding]:
    """What the form alone does not say."""
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        if isinstance(value, str) and name in _SPANS:
            try:
                seconds(value)
            except ValueError as error:
                yield _finding((*at, name), str(error), "write 90, '90s', '1.5m' or '200ms'")
                return
    try:
        begins, ends = bounds(entry)
    except ValueError as error:
        yield _finding((*at, "at"), str(error), "give seconds since the start")
        return
    if hasattr(entry, "until") and ends <= begins:
        yield _finding((*at, "until"), "it ends before it begins", "give a later `until`")
    selector = entry.devices
    if isinstance(selector, Selector) and selector.share is not None and selector.count:
        yield _finding((*at, "devices"), "share and count together", "keep one of them")


def _converted(
    raw: Any, form: type[Any], at: Location, findings: list[Finding]
) -> Any:  # fmt: skip
    """The value, or None with what is wrong; every key that is unknown is named."""
    if isinstance(raw, dict):
        raw = {str(key): value for key, value in raw.items()}
    for _ in range(len(raw) + 1 if isinstance(raw, dict) else 1):
        try:
            return msgspec.convert(raw, form)
        except msgspec.ValidationError as error:
            location, message, key = _place(str(error))
            inner = Selector if location[:1] == ("devices",) else form
            if key and _UNKNOWN.search(message):
                remedy = nearest(key, _names(inner))
                findings.append(_finding((*at, *location, key), "there is no such key", remedy))
                if location:
                    return None
                raw = {name: value for name, value in raw.items() if name != key}
                continue
            where = (*at, *location, key) if key else (*at, *location)
            said = "this key is missing" if key else message
            findings.append(_finding(where, said, "see the table in docs/simulator.md"))
            return None
    return None


def _place(text: str) -> tuple[Location, str, str]:
    """Where a message of msgspec points, its words, and the key it names if it names one."""
    path = _PATH.search(text)
    message = _PATH.sub("", text)
    steps = _STEP.findall(path[1]) if path else []
    location = tuple(name or int(number) for name, number in steps)
    named = _UNKNOWN.search(message) or _MISSING.search(message)
    return location, message, named[1] if named else ""


def _names(form: type[msgspec.Struct]) -> list[str]:
    names = list(form.__struct_fields__)
    return ["fault", *names] if form.__struct_config__.tag else names


def _finding(location: Location, message: str, remedy: str) -> Finding:
    return Finding(location=location, message=message, remedy=remedy)
