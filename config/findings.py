"""What a check of the configuration found: where, what, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

Location = tuple[str | int, ...]
"""Path of a key: names of tables and keys, and numbers within arrays of tables."""


class Severity(enum.Enum):
    """How bad it is."""

    ERROR = "error"
    """The service does not start, or cannot do what is asked of it."""
    WARNING = "warning"
    """It starts; somebody should know."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    location: Location
    message: str
    remedy: str = ""
    severity: Severity = Severity.ERROR
    stops: bool = True
    """Whether an error keeps the service from starting; an expired certificate does not."""

    @property
    def key(self) -> str:
        """The key as a person writes it: `modbus.devices.0.host`."""
        return ".".join(str(part) for part in self.location)


@dataclass(frozen=True)
class Sources:
    """Where each key was set: a line of the file, or a variable of the environment."""

    file: str
    lines: Mapping[Location, int]
    variables: Mapping[Location, str]

    def variable_of(self, location: Location) -> str | None:
        """The environment variable that set a key, if one did."""
        for depth in range(len(location), 0, -1):
            if location[:depth] in self.variables:
                return self.variables[location[:depth]]
        return None

    def line_of(self, location: Location) -> int | None:
        """The line of a key, or of the nearest table around it."""
        for depth in range(len(location), 0, -1):
            if location[:depth] in self.lines:
                return self.lines[location[:depth]]
        return None

    def place_of(self, location: Location) -> str:
        """`file:line`, the variable's name, or the file where neither is known."""
        variable = self.variable_of(location)
        if variable is not None:
            return variable
        line = self.line_of(location)
        return self.file if line is None else f"{self.file}:{line}"

    def explain(self, finding: Finding) -> str:
        """One line: place, key, what is wrong, what to do."""
        place = self.place_of(finding.location)
        parts = [place, "" if finding.key == place else finding.key, finding.message]
        text = ": ".join(part for part in parts if part)
        return f"{text}; {finding.remedy}" if finding.remedy else text
