"""Reads the real data: homes' hours and charging sessions.

Formats: `homes*.csv.gz` (home, period_start_utc, load_kw, pv_kw, outdoor_temp_c) and
`ev_sessions*.csv.gz` (site, station, arrival_utc, departure_utc, ..., delivered_kwh, and
`estimated_departure_utc` where drivers said when they would leave).
"""

from __future__ import annotations

import csv
import gzip
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import msgspec

from marketplace_core.errors import ConfigError, RecordError
from marketplace_core.intervals import instant

_T = TypeVar("_T")
HOUR = timedelta(hours=1)
_HOME_COLUMNS = ("home", "period_start_utc", "load_kw", "pv_kw")
_SESSION_COLUMNS = (
    "site",
    "station",
    "arrival_utc",
    "departure_utc",
    "requested_kwh",
    "delivered_kwh",
)


class HomeHours(msgspec.Struct, frozen=True):
    """One home's measured hours, in order; hours may be missing between them."""

    home: str
    starts: tuple[datetime, ...]
    load_kw: tuple[float, ...]
    """Mean consumption over the hour, positive, without the battery."""
    pv_kw: tuple[float, ...]
    """Mean generation over the hour, positive."""

    def at(self, when: datetime) -> tuple[float, float]:
        """Load and generation in kW in the hour of an instant. Raises ConfigError in a gap."""
        index = self._index(when)
        if index is None:
            msg = f"the data of {self.home} have no hour at {when.isoformat()}: choose another day"
            raise ConfigError(f"{msg} with --day")
        return self.load_kw[index], self.pv_kw[index]

    def covers(self, when: datetime) -> bool:
        """Whether the data have the hour of an instant."""
        return self._index(when) is not None

    def _index(self, when: datetime) -> int | None:
        index = bisect_right(self.starts, when) - 1
        return index if index >= 0 and when < self.starts[index] + HOUR else None

    @property
    def rated_pv_kw(self) -> float:
        """The generator's size as far as the data show it: its best hour, rounded up."""
        return float(math.ceil(max(self.pv_kw, default=0.0)))


class Session(msgspec.Struct, frozen=True):
    """One car at one charging station."""

    station: str
    arrival: datetime
    departure: datetime
    requested_kwh: float
    """What the driver asked for."""
    energy_kwh: float
    """What the car really took: it wants no more."""
    estimated: datetime | None = None
    """When the driver said that the car would leave, where they did."""


class DataSet:
    """The data of one folder, read when they are first asked for.

    Both raise ConfigError when there are no such files, RecordError (line, field) for a bad row.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def homes(self) -> dict[str, HomeHours]:
        """Every home of `homes*.csv.gz`, by name."""
        return read_homes(self.folder)

    @cached_property
    def sessions(self) -> tuple[Session, ...]:
        """Every session of `ev_sessions*.csv.gz`, by arrival."""
        return read_sessions(self.folder)


def shipped() -> Path:
    """Folder of the data that come with the package."""
    return Path(str(files("firmware_sim").joinpath("data")))


def read_homes(folder: Path) -> dict[str, HomeHours]:
    """Every home of `homes*.csv.gz` in a folder. Raises ConfigError, RecordError (line, field)."""
    hours: dict[str, dict[datetime, tuple[float, float]]] = {}
    for path in _files(folder, "homes*.csv.gz"):
        for row in _rows(path, _HOME_COLUMNS):
            home = hours.setdefault(row.text("home"), {})
            start = row.instant("period_start_utc")
            if start in home:
                raise row.error("period_start_utc", "this home has this hour already")
            home[start] = (row.number("load_kw"), row.number("pv_kw"))
    return {name: _home(name, hours[name]) for name in sorted(hours)}


def read_sessions(folder: Path) -> tuple[Session, ...]:
    """Every session of `ev_sessions*.csv.gz`, by arrival. Raises ConfigError, RecordError."""
    found = [
        _session(row)
        for path in _files(folder, "ev_sessions*.csv.gz")
        for row in _rows(path, _SESSION_COLUMNS)
    ]
    return tuple(sorted(found, key=lambda session: (session.arrival, session.station)))


class _Row:
    """One line of a file, able to say where it went wrong."""

    def __init__(self, path: Path, line: int, values: dict[str, str]) -> None:
        self._path = path
        self._line = line
        self._values = values

    def error(self, field: str, problem: str) -> RecordError:
        text = f"{self._path.name}, line {self._line}, field {field}: {problem}"
        return RecordError(text, line=self._line, field=field)

    def text(self, field: str) -> str:
        value = (self._values.get(field) or "").strip()
        if not value:
            raise self.error(field, "is empty")
        return value

    def instant(self, field: str) -> datetime:
        return self._parsed(field, instant, "is no instant with an offset (2017-07-20T17:00:00Z)")

    def optional_instant(self, field: str) -> datetime | None:
        """None where the cell is empty or the file has no such column."""
        return self.instant(field) if (self._values.get(field) or "").strip() else None

    def number(self, field: str) -> float:
        value = self._parsed(field, float, "is no number")
        if not (math.isfinite(value) and value >= 0):
            raise self.error(field, f"{value} is not a finite number of 0 or more")
        return value

    def _parsed(self, field: str, parse: Callable[[str], _T], problem: str) -> _T:
        text = self.text(field)
        try:
            return parse(text)
        except ValueError as error:
            raise self.error(field, f"{text!r} {problem}") from error


def _home(name: str, hours: dict[datetime, tuple[float, float]]) -> HomeHours:
    starts = tuple(sorted(hours))
    return HomeHours(
        name,
        starts,
        tuple(hours[start][0] for start in starts),
        tuple(hours[start][1] for start in starts),
    )


def _session(row: _Row) -> Session:
    arrival, departure = row.instant("arrival_utc"), row.instant("departure_utc")
    if departure <= arrival:
        raise row.error("departure_utc", "the car leaves before it arrives")
    return Session(
        f"{row.text('site')}/{row.text('station')}",
        arrival,
        departure,
        row.number("requested_kwh"),
        row.number("delivered_kwh"),
        row.optional_instant("estimated_departure_utc"),
    )


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        msg = f"no {pattern} in {folder}: name a folder with --data that holds such files"
        raise ConfigError(msg)
    return found


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                msg = f"{path.name}, line 1: the column {missing[0]} is missing"
                raise ConfigError(msg)
            for values in reader:
                yield _Row(path, reader.line_num, values)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{path.name} cannot be read as gzipped UTF-8 CSV: {error}"
        raise ConfigError(msg) from error
