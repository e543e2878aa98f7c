"""Measured minus baseline, in the direction that was asked."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from marketplace_core.events import DeliveryVerified, WindowClosed
from marketplace_core.intervals import Interval, instant
from marketplace_core.procurement.contract import Contract
from marketplace_core.registry.asset import MeasurementPoint
from marketplace_core.results import BaselineRefused, BaselineResult, BaselineValue
from marketplace_core.units import Direction, Kw
from marketplace_core.verification.delivery import verify

START = instant("2017-07-21T00:00:00Z")
WINDOW = WindowClosed(
    order_id="ord_1", revision=1, contract_id="ctr_1",
    period=Interval(START, START + timedelta(minutes=30)), version=2, instructed_kw=Kw(4.0),
    measured_kw=Kw(-3.0), coverage=1.0, gaps=0, series=("mtr",),
)  # fmt: skip
CONTRACT = Contract(
    id="ctr_1", need_id="need_1", bid_id="bid_1", buyer="org_b", seller="org_s", feeder="fdr_1",
    direction=Direction.UP, kw=Kw(4.0), window=WINDOW.period, utilisation_price=Decimal(100),
    currency="GBP", assets=("ast",), measurement_point=MeasurementPoint.SITE_NET,
    baseline="caiso_10_of_10", terms="utilisation",
)  # fmt: skip
BASELINE = BaselineValue(kw=(Kw(-8.0), Kw(-9.0)), days=("2017-07-19",), adjustment=1.1, note="hm")


def delivery(
    baseline: BaselineResult = BASELINE, index: int = 0, **changes: object
) -> DeliveryVerified:
    return verify(msgspec.structs.replace(WINDOW, **changes), CONTRACT, baseline, index)


def test_less_consumption_than_the_baseline_is_delivery_up() -> None:
    # -3 - (-8) = 5 kW for half an hour.
    result = delivery()
    assert result.delivered_kwh == pytest.approx(2.5)
    assert result.baseline_kw == -8.0
    assert result.baseline_days == ("2017-07-19",)
    assert result.baseline_method == "caiso_10_of_10"
    assert result.note == "hm"


def test_each_period_is_held_against_its_own_baseline() -> None:
    assert delivery(index=1).delivered_kwh == pytest.approx(3.0)


def test_what_the_window_says_is_carried_over() -> None:
    result = delivery()
    for field in ("order_id", "revision", "contract_id", "period", "version", "instructed_kw",
                  "measured_kw", "coverage"):  # fmt: skip
        assert getattr(result, field) == getattr(WINDOW, field)


def test_the_wrong_way_is_negative() -> None:
    assert delivery(measured_kw=Kw(-10.0)).delivered_kwh == pytest.approx(-1.0)


def test_down_counts_more_consumption() -> None:
    contract = msgspec.structs.replace(CONTRACT, direction=Direction.DOWN)
    window = msgspec.structs.replace(WINDOW, measured_kw=Kw(-10.0))
    assert verify(window, contract, BASELINE, 0).delivered_kwh == pytest.approx(1.0)


def test_too_little_coverage_counts_for_nothing_and_says_so() -> None:
    result = delivery(coverage=0.79)
    assert result.delivered_kwh == 0.0
    assert result.baseline_kw == -8.0
    assert result.note == ("hm; nothing counts: readings cover 79.0% of the period, 80% are needed")


def test_just_enough_coverage_counts() -> None:
    assert delivery(coverage=0.8).delivered_kwh == pytest.approx(2.5)


def test_a_refused_baseline_counts_for_nothing_and_says_why() -> None:
    result = delivery(BaselineRefused(reason="too few days"))
    assert result.delivered_kwh == 0.0
    assert result.baseline_kw is None
    assert result.baseline_days == ()
    assert result.note == "nothing counts: the baseline was refused: too few days"


@pytest.mark.parametrize("index", [-1, 2])
def test_a_period_that_the_baseline_does_not_have_is_a_bug(index: int) -> None:
    with pytest.raises(IndexError, match="2 periods"):
        delivery(index=index)
