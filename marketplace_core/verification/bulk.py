"""Bulk import of meter history: one CSV row is one reading, one bad row harms no other.

Columns: `series,start_utc,seconds,power_kw`; power is a mean over the span, injection
positive (a home that draws 2.3 kW reads -2.3).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from marketplace_core.csv_rows import read_rows
from marketplace_core.errors import RecordError
from marketplace_core.intervals import instant
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

COLUMNS: Final = ("series", "start_utc", "seconds", "power_kw")
_LONGEST_S: Final = 86_400.0
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_MOST_KW: Final = 1e6
"""A thousand megawatts: more at one meter is a unit mistake."""


def parse_readings(
    lines: Iterable[str], allowed: Collection[str]
) -> Iterator[Reading | RecordError]:
    """Yield a reading or an error for every row; `allowed` are the importer's own series.

    Raises:
        RecordError: the header is wrong, so no row can be read.
    """
    for row in read_rows(lines, COLUMNS):
        if isinstance(row, RecordError):
            yield row
            continue
        line, values = row
        try:
            yield _reading(values, line, allowed)
        except RecordError as error:
            yield error


def _reading(row: list[str], line: int, allowed: Collection[str]) -> Reading:
    series, start, seconds, power = row
    if series not in allowed:
        raise RecordError(
            f"{series!r} is not a meter of yours", line=line, field="series",
            rule="a seller imports its own meters", remedy="register the asset first",
        )  # fmt: skip
    return Reading(
        series=series,
        start=_start(start, line),
        seconds=_number(seconds, line, "seconds", 1.0, _LONGEST_S),
        power_kw=Kw(_number(power, line, "power_kw", -_MOST_KW, _MOST_KW)),
    )


def _start(text: str, line: int) -> datetime:
    try:
        start = instant(text)
    except ValueError as error:
        raise RecordError(
            str(error), line=line, field="start_utc", rule="ISO 8601 with an offset",
            remedy="write it as 2017-07-20T17:00:00Z",
        ) from error  # fmt: skip
    if not _EARLIEST <= start < _LATEST:
        rule = f"not before {_EARLIEST.year} and before {_LATEST.year}"
        raise RecordError(f"{text}", line=line, field="start_utc", rule=rule)
    return start


def _number(text: str, line: int, field: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise RecordError(
            f"{text!r}", line=line, field=field, rule=f"a number from {low:g} to {high:g}"
        )
    return value
