"""Baselines against numbers computed by hand, each citing the rule it holds the code to.

The market: hourly settlement in California; the event is Thursday 20 July 2017, 17:00 to
19:00 local. Loads are written as positive kW and enter as negative power.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from marketplace_core.intervals import Interval, SettlementGrid
from marketplace_core.provenance import Confidence
from marketplace_core.results import BaselineRefused, BaselineResult, BaselineValue
from marketplace_core.verification.baselines import METHODS, PowerHistory, compute

ZONE = ZoneInfo("America/Los_Angeles")
GRID = SettlementGrid(60, "America/Los_Angeles")
DAY = date(2017, 7, 20)
Hours = Mapping[int, float | None]
"""Load in kW by local hour of the day; None = no readings."""

# The ten weekdays before the event, newest first, with their loads at 17:00 and 18:00.
WEEKDAYS = {
    "2017-07-19": (10.0, 20.0), "2017-07-18": (11.0, 21.0), "2017-07-17": (12.0, 22.0),
    "2017-07-14": (13.0, 23.0), "2017-07-13": (14.0, 24.0), "2017-07-12": (15.0, 25.0),
    "2017-07-11": (16.0, 26.0), "2017-07-10": (17.0, 27.0), "2017-07-07": (18.0, 28.0),
    "2017-07-06": (19.0, 29.0),
}  # fmt: skip
USUAL_WINDOW = 8.0


def at(day: date, hour: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=ZONE)


def event(day: date = DAY, hour: int = 17) -> Interval:
    return Interval(at(day, hour), at(day, hour) + timedelta(hours=2))


def history(changes: Mapping[str, Hours], days: int = 60, last: date = DAY) -> PowerHistory:
    """Every day 8 kW but 500 kW from 17:00 to 19:00, unless the weekday table says less."""
    starts, loads = [], []
    for back in range(days, -1, -1):
        day = last - timedelta(days=back)
        evening = WEEKDAYS.get(day.isoformat(), (500.0, 500.0))
        usual: dict[int, float | None] = {17: evening[0], 18: evening[1]}
        usual.update(changes.get(day.isoformat(), {}))
        for hour in range(24):
            starts.append(round(at(day, hour).timestamp()))
            loads.append(usual.get(hour, USUAL_WINDOW))
    coverage = np.array([0.0 if load is None else 1.0 for load in loads])
    power = np.array([0.0 if load is None else -load for load in loads])
    return PowerHistory(np.array(starts, dtype=np.int64), power, coverage)


def caiso(
    changes: Mapping[str, Hours],
    *,
    excluded: tuple[str, ...] = (),
    holidays: tuple[str, ...] = (),
    notified_at: datetime | None = None,
    days: int = 60,
) -> BaselineResult:
    return compute(
        "caiso_10_of_10", event=event(), grid=GRID, history=history(changes, days),
        excluded_days=excluded, holidays=holidays, notified_at=notified_at,
    )  # fmt: skip


def value(result: BaselineResult) -> BaselineValue:
    assert isinstance(result, BaselineValue), result
    return result


def test_caiso_mean_of_the_ten_most_recent_like_days() -> None:
    # market-rules "caiso_10_of_10": 10 most recent like-days without event. The day's
    # window equals the usual one, so the ratio is 1. A weekend counted in would show: 500.
    # By hand: 10 to 19 average to 14.5, and 20 to 29 to 24.5.
    result = value(caiso({}))
    assert result.kw == pytest.approx((-14.5, -24.5))
    assert result.days == tuple(WEEKDAYS)
    assert result.adjustment == pytest.approx(1.0)
    assert not result.note


def test_caiso_adjustment_is_the_ratio_from_four_to_two_hours_before() -> None:
    # market-rules "caiso_10_of_10": multiplicative, window -4 h to -2 h before start. The
    # day's 13:00 and 14:00 are 8.4 and 9.2 kW: (8.4 + 9.2) / (8 + 8) = 1.1. The hours
    # beside the window are far off and must not count.
    result = value(caiso({"2017-07-20": {12: 90.0, 13: 8.4, 14: 9.2, 15: 90.0, 16: 90.0}}))
    assert result.adjustment == pytest.approx(1.1)
    # 14.5 x 1.1 and 24.5 x 1.1, as consumption.
    assert result.kw == pytest.approx((-15.95, -26.95))


def test_caiso_usual_window_is_the_mean_over_the_days_used() -> None:
    # One like day of ten draws 18 kW in the window: (9 x 8 + 18) / 10 = 9; 9 / 9 = 1.
    changes = {"2017-07-17": {13: 18.0, 14: 18.0}, "2017-07-20": {13: 9.0, 14: 9.0}}
    assert value(caiso(changes)).adjustment == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("window_kw", "ratio", "evening"),
    [
        (16.0, 1.2, (-17.4, -29.4)),  # 2.0 is capped: 14.5 x 1.2, 24.5 x 1.2
        (4.0, 0.8, (-11.6, -19.6)),  # 0.5 is capped: 14.5 x 0.8, 24.5 x 0.8
    ],
)
def test_caiso_adjustment_is_capped_at_twenty_percent(
    window_kw: float, ratio: float, evening: tuple[float, float]
) -> None:
    # market-rules "caiso_10_of_10": cap +-20 %.
    result = value(caiso({"2017-07-20": {13: window_kw, 14: window_kw}}))
    assert result.adjustment == pytest.approx(ratio)
    assert result.kw == pytest.approx(evening)
    assert "capped" in result.note


def test_caiso_leaves_out_event_days_and_says_which_days_it_used() -> None:
    # market-rules "Rules that hold for all": event days are left out. Without 18 July the
    # tenth day is 5 July (no entry: 500 kW): (145 - 11 + 500) / 10 = 63.4 at 17:00.
    result = value(caiso({}, excluded=("2017-07-18",)))
    assert "2017-07-18" not in result.days
    assert result.days[-1] == "2017-07-05"
    assert result.kw == pytest.approx((-63.4, -72.4))


def test_caiso_leaves_out_a_holiday_among_weekdays() -> None:
    # market-rules "Rules that hold for all": holidays are left out of weekdays.
    result = value(caiso({}, holidays=("2017-07-18",)))
    assert result.days == value(caiso({}, excluded=("2017-07-18",))).days


def test_caiso_leaves_out_a_day_without_readings() -> None:
    for hour in (13, 18):
        result = value(caiso({"2017-07-18": {hour: None}}))
        assert "2017-07-18" not in result.days
        assert len(result.days) == 10


def test_caiso_for_a_weekend_or_holiday_uses_weekends_and_holidays() -> None:
    # Event on Saturday 22 July; the like days are Saturdays, Sundays and 4 July (a Tuesday).
    saturday = date(2017, 7, 22)
    result = value(
        compute(
            "caiso_10_of_10", event=event(saturday), grid=GRID,
            history=history({}, last=saturday), excluded_days=(), holidays=("2017-07-04",),
        )
    )  # fmt: skip
    assert result.days == (
        "2017-07-16", "2017-07-15", "2017-07-09", "2017-07-08", "2017-07-04",
        "2017-07-02", "2017-07-01", "2017-06-25", "2017-06-24", "2017-06-18",
    )  # fmt: skip
    assert result.kw == pytest.approx((-500.0, -500.0))


def test_caiso_with_too_few_days_refuses_with_the_reason() -> None:
    # market-rules "Rules that hold for all": too few days is a refusal with a reason. Nine
    # weekdays lie within the last 13 days.
    result = caiso({}, days=13)
    assert isinstance(result, BaselineRefused)
    assert "needs 10 like days without event within 45 days and found 9" in result.reason


def test_caiso_looks_back_forty_five_days_and_no_further() -> None:
    # market-rules "caiso_10_of_10": look-back 45. There are 33 weekdays from 5 June (45 days
    # before) to 19 July; with all but the ten oldest excluded the tenth is 5 June itself,
    # and with one of those excluded too an eleventh, on 2 June, is out of reach.
    weekdays = [
        day.isoformat()
        for back in range(1, 46)
        if (day := DAY - timedelta(days=back)).weekday() < 5
    ]
    assert (len(weekdays), weekdays[-1]) == (33, "2017-06-05")
    result = value(caiso({}, excluded=tuple(weekdays[:-10])))
    assert result.days[-1] == "2017-06-05"
    assert isinstance(caiso({}, excluded=tuple(weekdays[:-9])), BaselineRefused)


def test_caiso_refuses_to_scale_where_homes_export_in_the_window() -> None:
    # market-rules "Rules that hold for all": a ratio adjustment is refused where its
    # denominator is at or below a floor (homes with PV export at 13:00-15:00 in summer).
    export = {day: {13: -3.0, 14: -3.0} for day in WEEKDAYS}
    result = value(caiso(export | {"2017-07-20": {13: -6.0, 14: -6.0}}))
    assert result.kw == pytest.approx((-14.5, -24.5))
    assert result.adjustment == 1.0
    assert "not adjusted" in result.note


def test_caiso_refuses_to_scale_by_an_export_over_a_consumption() -> None:
    result = value(caiso({"2017-07-20": {13: -6.0, 14: -6.0}}))
    assert result.kw == pytest.approx((-14.5, -24.5))
    assert "not adjusted" in result.note


def test_caiso_refuses_to_scale_at_the_floor_and_scales_above_it() -> None:
    # The floor is a tenth of the mean baseline: (14.5 + 24.5) / 2 / 10 = 1.95 kW.
    for kw, adjusted in ((1.95, False), (1.96, True)):
        usual = {day: {13: kw, 14: kw} for day in WEEKDAYS}
        result = value(caiso(usual | {"2017-07-20": {13: 2.2, 14: 2.2}}))
        assert (result.adjustment != 1.0) is adjusted


def test_caiso_does_not_scale_an_export() -> None:
    # A portfolio that exports in the evening but consumes in the window.
    export = {day: {17: -5.0, 18: -7.0} for day in WEEKDAYS}
    result = value(caiso(export | {"2017-07-20": {13: 9.0, 14: 9.0}}))
    assert result.kw == pytest.approx((5.0, 7.0))
    assert "not adjusted" in result.note


def test_caiso_does_not_adjust_by_a_window_with_missing_readings() -> None:
    result = value(caiso({"2017-07-20": {13: 16.0, 14: None}}))
    assert result.adjustment == 1.0
    assert "readings are missing" in result.note


def test_caiso_does_not_adjust_by_a_window_that_the_seller_could_inflate() -> None:
    # market-rules "Rules that hold for all": a window that ends after the notification can
    # be gamed; a guard refuses it. The window ends at 15:00.
    inflated = {"2017-07-20": {13: 16.0, 14: 16.0}}
    early = value(caiso(inflated, notified_at=at(DAY, 14)))
    assert early.adjustment == 1.0
    assert "after the notification" in early.note
    assert value(caiso(inflated, notified_at=at(DAY, 15))).adjustment == pytest.approx(1.2)


def test_caiso_compares_wall_times_across_a_clock_change() -> None:
    # Tuesday 14 March 2017, two days after the clocks went forward: like days before and
    # after the change are read at 17:00 local alike, or the 500 kW would not be met.
    tuesday = date(2017, 3, 14)
    result = value(
        compute(
            "caiso_10_of_10", event=event(tuesday), grid=GRID,
            history=history({}, last=tuesday), excluded_days=(),
        )
    )  # fmt: skip
    assert result.kw == pytest.approx((-500.0, -500.0))
    assert result.days[0] == "2017-03-13"


def test_an_event_longer_than_a_day_uses_no_day_that_it_touches_itself() -> None:
    long = Interval(at(DAY, 17), at(DAY, 17) + timedelta(hours=26))
    days = value(
        compute(
            "caiso_10_of_10", event=long, grid=GRID,
            history=history({}, days=62, last=DAY + timedelta(days=2)), excluded_days=(),
        )
    ).days  # fmt: skip
    assert days[0] == "2017-07-18"


def test_meter_before_after_holds_the_mean_of_the_hour_before() -> None:
    # market-rules "meter_before_after": the hour before minus actual.
    grid = SettlementGrid(30, "America/Los_Angeles")
    starts = [at(DAY, 15), at(DAY, 15) + timedelta(minutes=30),
              at(DAY, 16), at(DAY, 16) + timedelta(minutes=30)]  # fmt: skip
    meter = PowerHistory(
        np.array([round(start.timestamp()) for start in starts], dtype=np.int64),
        np.array([-99.0, -99.0, -6.0, -9.0]),
        np.ones(4),
    )
    result = value(
        compute("meter_before_after", event=event(), grid=grid, history=meter, excluded_days=())
    )
    assert result.kw == (-7.5, -7.5, -7.5, -7.5)
    assert result.days == ("2017-07-20",)
    assert not result.note


def test_meter_before_after_is_flagged_where_the_seller_knew() -> None:
    # market-rules: published methods with a late window are usable but flagged.
    result = value(
        compute(
            "meter_before_after", event=event(), grid=GRID, history=history({}),
            excluded_days=(), notified_at=at(DAY, 16),
        )
    )  # fmt: skip
    assert result.kw == pytest.approx((-8.0, -8.0))
    assert "can be gamed" in result.note


def test_meter_before_after_without_readings_refuses() -> None:
    result = compute(
        "meter_before_after", event=event(), grid=GRID,
        history=history({"2017-07-20": {16: None}}), excluded_days=(),
    )  # fmt: skip
    assert isinstance(result, BaselineRefused)
    assert "covers 0% of it" in result.reason


def test_zero_is_nothing_in_every_period() -> None:
    # market-rules "zero": nothing.
    empty = PowerHistory(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    result = value(compute("zero", event=event(), grid=GRID, history=empty, excluded_days=()))
    assert result.kw == (0.0, 0.0)
    assert result.days == ()


def test_an_unknown_method_refuses_and_names_those_there_are() -> None:
    result = compute("guess", event=event(), grid=GRID, history=history({}), excluded_days=())
    assert isinstance(result, BaselineRefused)
    assert "caiso_10_of_10, meter_before_after, zero" in result.reason


def test_every_method_carries_its_source_date_and_confidence() -> None:
    for name, method in METHODS.items():
        assert method.rule.id == name
        assert method.rule.as_of >= "2017"
        assert method.rule.sources
    caiso_rule = METHODS["caiso_10_of_10"].rule
    assert "Nexant" in caiso_rule.source
    assert "[read, 2017]" in caiso_rule.source
    # Its days and cap were read; its coverage and floor are our own: so is the whole.
    assert caiso_rule.confidence is Confidence.OWN
    assert METHODS["zero"].rule.confidence is Confidence.READ
