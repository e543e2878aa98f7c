"""Keyset pages: a stable order, and a key to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Column, Connection, Row, Select, literal, tuple_

from marketplace_core.errors import RequestError

T = TypeVar("T")
_MOST = 2**63 - 1
"""Greatest number that a column holds."""
Key = tuple[str | int, ...]


class Page(msgspec.Struct, frozen=True):
    """Which part of a list is asked for."""

    limit: int
    after: Key = ()
    """Key of the last item that was given out; empty = from the start."""


class Slice(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list."""

    items: list[T]
    following: Key | None
    """Key to go on from; None at the end."""


def rows_of(
    connection: Connection,
    query: Select[Any],
    page: Page,
    *keys: Column[Any],
    newest_first: bool = False,
) -> Slice[Row[Any]]:
    """One page of a query in the order of `keys`, which must be unique and be selected.

    With `newest_first` the greatest keys come first.

    Raises:
        RequestError: the page goes on from a key of another list.
    """
    if page.after:
        after = checked(page.after, [column.type.python_type for column in keys])
        values = [literal(v, c.type) for v, c in zip(after, keys, strict=True)]
        place, mark = tuple_(*keys), tuple_(*values)
        query = query.where(place < mark if newest_first else place > mark)
    order = [key.desc() for key in keys] if newest_first else list(keys)
    rows = list(connection.execute(query.order_by(*order).limit(page.limit + 1)))
    following = None
    if len(rows) > page.limit:
        last = rows[page.limit - 1]._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
        following = tuple(last[column] for column in keys)
    return Slice(rows[: page.limit], following)


def slice_of(items: Sequence[T], keys: Sequence[str], page: Page) -> Slice[T]:
    """One page of a list in memory; `keys` are unique, one per item, in the order of the list."""
    start = 0
    if page.after:
        (after,) = checked(page.after, [str])
        start = sum(1 for key in keys if key <= str(after))
    end = start + page.limit
    following = (keys[end - 1],) if end < len(items) else None
    return Slice(list(items[start:end]), following)


def checked(after: Key, types: Sequence[type]) -> Key:
    """A key to go on from; RequestError when it is one of another list."""
    fits = len(after) == len(types) and all(map(isinstance, after, types))
    if not fits or any(isinstance(key, int) and abs(key) > _MOST for key in after):
        raise RequestError(
            "the cursor belongs to another list", field="cursor",
            rule="a cursor goes on in the list that gave it out", remedy="start without a cursor",
        )  # fmt: skip
    return after
