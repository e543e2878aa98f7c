"""Readings that meet a window which is just being closed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from gateway.stages.observe import Observe, Watched
from gateway.store.delivery import WindowRow
from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.units import Kw
from marketplace_core.verification.reading import Reading

START = datetime(2026, 7, 20, 22, 0, tzinfo=UTC)
KEY = ("ord_1", "ctr_1", START)


def test_a_reading_that_comes_between_measuring_and_closing_is_late() -> None:
    nothing = cast("Any", None)
    observe = Observe(
        engine=nothing, writer=nothing, readings=nothing, clock=nothing,
        grid=SettlementGrid(15, "UTC"), grace=timedelta(0), late_for=timedelta(days=1),
        rebound=timedelta(0),
    )  # fmt: skip
    row = WindowRow(
        order_id="ord_1", contract_id="ctr_1", version=0,
        period=Interval(START, START + timedelta(minutes=15)),
        instructed_kw=1.0, closed=None, delivery=None,
    )  # fmt: skip
    reading = Reading(series="m-1", start=START, seconds=60.0, power_kw=Kw(1.0))
    observe._open[KEY] = Watched(row, ("m-1",))
    observe.stored([reading])
    assert observe._late == set()  # it is measured when the window closes
    observe._closing[KEY] = observe._open[KEY]
    observe.stored([reading])
    assert observe._late == {KEY}
