"""The exact clearing of 2,000 indivisible bids over 48 windows, beside bare HiGHS.

`clearing_2000x48` and `clearing_2000x48_groups` (six bids in ten are in an exclusive group):
the certified gap of the cost after ten seconds, ours and that of HiGHS alone, one thread each,
on the same program; run by run in turn. A ratio below 1 is a smaller gap than HiGHS alone.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

from marketplace_core.procurement.auction import highs
from marketplace_core.procurement.auction.instance import Instance, Offer
from marketplace_core.procurement.auction.model import model
from marketplace_core.procurement.auction.search import Budget, minimise
from marketplace_core.procurement.auction.tableau import tableau
from marketplace_core.procurement.need import Pricing

BIDS, WINDOWS = 2000, 48
SECONDS = 10.0
GROUPED = 0.6


def instance(number: int, *, groups: bool) -> Instance:
    """Bids of lognormal size in about half of the windows; a fifth to a third of all is needed."""
    chance = random.Random(number)
    bids = []
    for at in range(BIDS):
        size, price = chance.lognormvariate(4, 0.8), chance.uniform(60, 300)
        kw = tuple(
            round(size * chance.uniform(0.5, 1), 1) if chance.random() < 0.5 else 0.0
            for _ in range(WINDOWS)
        )
        group = f"g{chance.randrange(BIDS // 4)}" if chance.random() < GROUPED else None
        bids.append(
            Offer(
                id=f"b{at:05d}", seller=f"s{chance.randrange(40)}", kw=kw, divisible=False,
                price_per_mwh=tuple(round(price * chance.uniform(0.9, 1.1), 2) for _ in kw),
                exclusive_group=group if groups else None,
            )
        )  # fmt: skip
    need = tuple(
        round(0.35 * sum(bid.kw[at] for bid in bids) * chance.uniform(0.6, 1), 1)
        for at in range(WINDOWS)
    )
    return Instance(
        pricing=Pricing.PAY_AS_BID, need_kw=need, hours=(0.5,) * WINDOWS, bids=tuple(bids)
    )


def run(runs: int) -> list[dict[str, Any]]:
    """Medians over `runs` instances each."""
    return [
        _row("clearing_2000x48", runs, groups=False),
        _row("clearing_2000x48_groups", runs, groups=True),
    ]


def _row(name: str, runs: int, *, groups: bool) -> dict[str, Any]:
    gaps = [_gaps(number, groups=groups) for number in range(1, runs + 1)]
    ours, reference = (statistics.median(each) for each in zip(*gaps, strict=True))
    return {
        "name": name, "ours": 100 * ours, "reference": 100 * reference, "ratio": ours / reference,
        "unit": f"% gap at {SECONDS:g} s", "runs": runs,
    }  # fmt: skip


def _gaps(number: int, *, groups: bool) -> tuple[float, float]:
    asked = instance(number, groups=groups)
    program = model(tableau(asked, asked.bids)).cheapest(0.0)
    until = time.monotonic() + SECONDS
    best = minimise(program, Budget(seconds_left=lambda: until - time.monotonic()))
    bare = highs.solve(program, SECONDS)
    assert best.x is not None
    value = float("inf") if bare.x is None else float(program.cost @ bare.x)
    return 1 - best.bound / best.value, 1 - bare.bound / value
