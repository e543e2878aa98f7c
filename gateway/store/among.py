"""Rows whose key is in a list of any length.

An `IN` list has one parameter for each value: SQLite takes 32,766 of them at most, and the
statement is put together anew for every length. One JSON parameter has neither.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Text, cast, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB


def among(
    connection: Connection, column: Column[Any], values: Collection[str]
) -> ColumnElement[bool]:
    """The condition that `column` holds one of `values`, on SQLite and PostgreSQL."""
    listed = msgspec.json.encode(list(values)).decode()
    if connection.dialect.name == "postgresql":
        parsed = cast(literal(listed, Text), JSONB)
        elements = func.jsonb_array_elements_text(parsed).column_valued("listed")
        return column.in_(select(elements))
    rows = func.json_each(listed).table_valued("value")
    return column.in_(select(rows.c.value))
