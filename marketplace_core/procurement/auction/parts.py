"""Parts of an auction that have nothing to do with each other, cleared one by one."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from marketplace_core.procurement.auction.tableau import Tableau


def parts(table: Tableau) -> list[Tableau]:
    """Connected parts, by their first bid; windows that nobody bids on are in none.

    Bids are connected by a window with a need, an exclusive group, a requirement and a seller
    whose limit could bind.
    """
    root = list(range(table.size))

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    def join(rows: Iterable[int]) -> None:
        first: int | None = None
        for row in rows:
            first = find(row) if first is None else first
            root[find(row)] = first

    useful = (table.most > 0) & (table.need > 0)
    for window in range(len(table.need)):
        join(np.flatnonzero(useful[:, window]).tolist())
    for rows in (*table.groups, *table.requires, *(rows for _, rows in table.sellers)):
        join(rows)
    found: dict[int, list[int]] = {}
    for row in range(table.size):
        found.setdefault(find(row), []).append(row)
    return [_part(table, rows) for rows in found.values()]


def _part(table: Tableau, rows: list[int]) -> Tableau:
    place = {row: number for number, row in enumerate(rows)}
    bids = tuple(table.bids[row] for row in rows)
    useful = ((table.most[rows] > 0) & (table.need > 0)).any(axis=0)
    return msgspec.structs.replace(
        table,
        bids=bids,
        number={bid.id: number for number, bid in enumerate(bids)},
        need=np.where(useful, table.need, 0.0),
        least=table.least[rows],
        most=table.most[rows],
        unit_cost=table.unit_cost[rows],
        groups=tuple(
            tuple(place[row] for row in group) for group in table.groups if group[0] in place
        ),
        requires=tuple((place[a], place[b]) for a, b in table.requires if a in place),
        sellers=tuple(
            (seller, tuple(place[row] for row in mine))
            for seller, mine in table.sellers
            if mine[0] in place
        ),
        free=table.free[rows],
    )
