"""The registry of baseline methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final

from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.results import BaselineRefused, BaselineResult
from marketplace_core.verification.baselines.like_days import CAISO_10_OF_10, LikeDays
from marketplace_core.verification.baselines.request import BaselineMethod, BaselineRequest
from marketplace_core.verification.baselines.same_day import (
    METER_BEFORE_AFTER,
    ZERO,
    MeterBefore,
    Zero,
)
from marketplace_core.verification.windows import PowerHistory

_ALL: Final[tuple[BaselineMethod, ...]] = (
    LikeDays(CAISO_10_OF_10),
    MeterBefore(METER_BEFORE_AFTER),
    Zero(ZERO),
)
METHODS: Final[Mapping[str, BaselineMethod]] = {method.rule.id: method for method in _ALL}
"""Every method by the id that contracts name."""


def compute(
    method_id: str,
    *,
    event: Interval,
    grid: SettlementGrid,
    history: PowerHistory,
    excluded_days: Collection[str],
    holidays: Collection[str] = (),
    notified_at: datetime | None = None,
    rebound: timedelta = timedelta(0),
) -> BaselineResult:
    """Baseline of one event: one mean power for every settlement period it meets.

    With `rebound` it goes on for so long after the event.

    `excluded_days` (events, outages) and `holidays` are ISO dates local to the market.
    With `notified_at`, a window that ended after the seller knew is not used to adjust.
    """
    method = METHODS.get(method_id)
    if method is None:
        return BaselineRefused(
            reason=f"there is no baseline method {method_id!r}; known are {', '.join(METHODS)}"
        )
    return method.compute(
        BaselineRequest(
            event=event,
            grid=grid,
            history=history,
            excluded_days=frozenset(excluded_days),
            holidays=frozenset(holidays),
            notified_at=notified_at,
            rebound=rebound,
        )
    )
