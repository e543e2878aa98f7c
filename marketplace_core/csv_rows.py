"""Rows of an imported CSV file, each with its line: one that cannot be read harms no other."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence

from marketplace_core.errors import RecordError

Row = tuple[int, list[str]]
"""Line number, counted from 1, and the values."""


def read_rows(lines: Iterable[str], columns: Sequence[str]) -> Iterator[Row | RecordError]:
    """Yield each row that is not empty, with as many values as there are columns, or its error.

    Raises:
        RecordError: the header is wrong, so no row can be read.
    """
    rows = csv.reader(lines)
    header = list(_next(rows, 1) or ())
    if header != list(columns):
        raise RecordError(
            f"the header is {','.join(header)[:200]!r}", line=1, field="header",
            rule=f"columns are {','.join(columns)}", remedy="name the columns so, in this order",
        )  # fmt: skip
    while True:
        try:
            row = _next(rows, rows.line_num + 1)
        except RecordError as error:
            yield error
            continue
        if row is None:
            return
        if row and len(row) != len(columns):
            yield RecordError(
                f"{len(row)} values", line=rows.line_num, field="row",
                rule=f"a row has {len(columns)} values",
            )  # fmt: skip
        elif row:
            yield rows.line_num, row


def _next(rows: Iterator[list[str]], line: int) -> list[str] | None:
    """The next row; None at the end. Raises RecordError for one that is no CSV."""
    try:
        return next(rows, None)
    except csv.Error as error:
        raise RecordError(
            str(error), line=line, field="row", rule="a row is CSV (RFC 4180)",
            remedy="look for a quote that is not closed",
        ) from error  # fmt: skip
