"""How much each taken bid is awarded: the cheapest way, once it is known who is taken."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from marketplace_core.procurement.auction import highs
from marketplace_core.procurement.auction.model import UNMET_SLACK, Model, with_row
from marketplace_core.procurement.auction.tableau import BoolArray, FloatArray, Tableau

_RELATIVE: Final = 2e-8
"""By so little may the cost exceed the least while ties are settled; see `UNMET_SLACK`."""
_TIGHT: Final = 1e-10
"""Of the needed energy: slack of the unmet, tried before the slack of the search."""
_SECONDS: Final = 10.0
"""Far more than a linear program of one clearing takes."""


def filled(table: Tableau, taken: BoolArray) -> FloatArray:
    """Awarded kW, bids x windows, where no seller's limit binds.

    Every taken bid gets its least; what is still missing in a window is filled up in the order
    of price, then of the table (mean price, then id). No other amounts leave less unmet, and
    none of those that leave as little cost less.
    """
    kw = np.where(taken[:, None], table.least, 0.0)
    missing = table.need - kw.sum(axis=0)
    room = np.where(taken[:, None], table.most - table.least, 0.0)
    for window in np.flatnonzero((missing > 0) & room.any(axis=0)):
        rows = np.flatnonzero(room[:, window])
        for row in rows[np.argsort(table.unit_cost[rows, window], kind="stable")]:
            part = min(missing[window], room[row, window])
            kw[row, window] += part
            missing[window] -= part
            if missing[window] <= 0:
                break
    return kw


def within_limits(
    table: Tableau, model: Model, taken: BoolArray, unmet_kwh: float, known: FloatArray
) -> FloatArray:
    """The same where sellers' limits bind: by linear programs, `known` if they find nothing.

    Of the cheapest amounts those with most energy from the first bids of the table.
    """
    for slack in (_TIGHT, UNMET_SLACK):
        program = model.cheapest(unmet_kwh, slack)
        lower, upper = program.lower.copy(), program.upper.copy()
        lower[: table.size] = upper[: table.size] = taken | table.free
        fixed = msgspec.structs.replace(
            program, lower=lower, upper=upper, integer=np.zeros(program.columns, bool)
        )
        best = highs.relax(fixed, _SECONDS)
        if best.x is not None:
            break
    else:
        return known
    rank = np.zeros(program.columns)
    more = slice(table.size, table.size + len(model.more_bid))
    rank[more] = (1.0 + model.more_bid) * table.hours[model.more_window]
    scale = max(abs(best.bound), _RELATIVE)
    cheap = with_row(fixed, program.cost / scale, best.bound / scale + _RELATIVE)
    first = highs.relax(msgspec.structs.replace(cheap, cost=rank), _SECONDS)
    return model.amounts(best.x if first.x is None else first.x, table)


def without_idle(table: Tableau, taken: BoolArray, kw: FloatArray) -> BoolArray:
    """The bids that are awarded something, and what they require."""
    needed = taken & (kw.sum(axis=1) > 0)
    while True:
        also = {other for bid, other in table.requires if needed[bid] and not needed[other]}
        if not also:
            return np.asarray(needed, dtype=bool)
        needed[list(also)] = True
