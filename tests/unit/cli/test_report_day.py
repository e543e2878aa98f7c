"""What is shown of an order: energies, sums of minutes, joined incidents, judged flags."""

from __future__ import annotations

import pytest

from gateway.cli.report_day import incidents, order_days, uncalled_bids
from gateway.cli.report_faults import FALSE_ALARM, MATCHED, MISSED, UNJUDGED, findings
from gateway.cli.report_setpoints import exceptions, setpoints
from gateway.cli.report_tables import happenings, rebound, truth
from gateway.cli.report_words import MINUS, NONE, number, share, signed
from tests.harness.day_report import CARS, sample_report


def typed(*cells: str) -> tuple[str, ...]:
    """Cells as a keyboard has them: signs and dashes are hyphens."""
    return tuple(cell.replace(MINUS, "-").replace(NONE, "-") for cell in cells)


def test_energies_of_a_contract_are_its_windows() -> None:
    midday, evening = order_days(sample_report())
    first, second = midday.deliveries
    assert (first.asked_kwh, first.got_kwh, first.short_periods) == (20.0, 24.0, 0)
    assert (second.asked_kwh, second.got_kwh, second.short_periods) == (10.0, 8.0, 4)
    assert second.rebound_kwh == pytest.approx(-1.5)
    assert [one.got_kwh for one in evening.deliveries] == [12.5, -4.0]


def test_contracts_carry_the_rank_of_their_bid() -> None:
    midday, evening = order_days(sample_report())
    assert [one.rank for one in midday.deliveries] == [1, 2]
    assert [one.rank for one in evening.deliveries] == [1, 2]
    assert [bid.rank for bid in evening.bids] == [1, 2, None]


def test_two_bids_at_one_price_leave_the_rank_open_instead_of_guessing() -> None:
    report = sample_report()
    report["awards"].append({**report["awards"][0], "kw": 1.0})
    ranks = {one.contract: one.rank for one in order_days(report)[0].deliveries}
    assert ranks == {"ctr_M1": None, "ctr_M2": 3}


def test_periods_add_up_over_contracts_and_know_the_rebound() -> None:
    midday, _ = order_days(sample_report())
    assert [(p.asked, p.got, p.after) for p in midday.periods] == (
        [(30.0, 32.0, False)] * 4 + [(0.0, -6.0, True)] * 2
    )


def test_a_minute_in_which_a_contract_is_missing_is_left_out() -> None:
    report = sample_report()
    gone = report["trace"].pop(45)
    assert gone["contract"] == "ctr_M1"
    points = {point.at for point in order_days(report)[0].points}
    assert gone["at"] not in points
    assert len(points) == 119


def test_the_target_goes_the_way_that_was_asked() -> None:
    for day, sign in zip(order_days(sample_report()), (-1.0, 1.0), strict=True):
        inside = [p for p in day.points if day.start <= p.at < day.end]
        assert len(inside) == 60
        for point in inside:
            assert point.target is not None
            assert point.baseline is not None
            assert (point.target - point.baseline) * sign == pytest.approx(day.kw)


def test_incidents_are_joined_with_their_ends_and_open_ones_stay_open() -> None:
    report = sample_report()
    report["incidents"].pop()
    report["incidents"].append({"kind": "meteor", "at": "2017-07-21T00:55:00Z"})
    assert [mark.label for mark in incidents(report)] == [
        "uplink lost 12:20 to 12:23", "gateway killed 17:50", "meteor 17:55",
    ]  # fmt: skip


def test_bids_of_a_called_order_are_not_shown_as_uncalled() -> None:
    assert uncalled_bids(sample_report()) == {}


def test_flags_are_matched_with_faults_as_the_judge_said() -> None:
    found = findings(sample_report())
    assert [(one.number, one.kind, one.verdict) for one in found] == [
        (1, "times_out", MATCHED), (2, "ignores", MATCHED),
    ]  # fmt: skip
    assert all(one.injected and one.flagged and one.flagged > one.injected for one in found)


def test_a_missed_fault_and_a_false_alarm_are_named() -> None:
    report = sample_report()
    fault = report["truth"]["injected"][0]
    del fault["after_intervals"]
    report["truth"]["misses"] = [fault]
    report["flags"][0]["device"] = "dev_innocent"
    report["truth"]["false_alarms"] = [
        {"device": "dev_innocent", "fault": "times_out", "at": report["flags"][0]["at"]}
    ]
    verdicts = {one.device: one.verdict for one in findings(report)}
    assert verdicts == {
        "dev_innocent": FALSE_ALARM, "dev_fontana_02_battery": MISSED,
        "dev_charger_ca_315": MATCHED,
    }  # fmt: skip


def test_a_second_flag_of_the_same_fault_is_no_further_row() -> None:
    report = sample_report()
    report["flags"].append({**report["flags"][0], "at": "2017-07-20T19:25:00Z"})
    found = findings(report)
    assert len(found) == 2
    assert found[0].after == "1.0"


def test_without_a_judge_nothing_is_judged() -> None:
    report = sample_report()
    del report["truth"]
    assert {one.verdict for one in findings(report)} == {UNJUDGED}


def test_devices_are_summed_and_those_that_did_not_follow_are_named() -> None:
    report = sample_report()
    rows = [typed(*row[:6]) for row in setpoints(report).rows]
    assert rows == [
        ("midday", "Sunrise Homes", "modbus", "1", "1", "-4.0"),
        ("evening", "Voltfleet Cars", "mqtt", "2", "2", "-3.4"),
        ("evening", "Campus Garage", "openadr", "1", "0", "-50.7"),
    ]
    assert [typed(row[1], row[4]) for row in exceptions(report).rows] == [
        ("charger_ca_315", "-4.50 kW off"), ("campus_garage_1", "refused"),
    ]  # fmt: skip


def test_the_closed_loop_is_told_in_order_of_time() -> None:
    rows = happenings(sample_report()).rows
    assert [typed(*row[:3]) for row in rows] == [
        ("12:04", "revision 1", "midday"), ("12:20", "uplink lost", "-"),
        ("17:04", "revision 1", "evening"), ("17:50", "gateway killed", "-"),
    ]  # fmt: skip


def test_rebound_is_summed_by_seller_with_its_strongest_period() -> None:
    report = sample_report()
    assert typed(*rebound(report, order_days(report)).rows[0]) == (
        "midday", "Sunrise Homes", "32.0", "-3.0", "-9 %", "-6.0",
    )  # fmt: skip


def test_the_truth_is_a_difference_in_energy_first_and_per_cent_second() -> None:
    table = truth(sample_report())
    assert [typed(*row[:6]) for row in table.rows] == [
        ("midday", "Sunrise Homes", "28.0", "31.0", "-3.0", "-10 %"),
        ("evening", "Voltfleet Cars", "12.0", "7.0", "+5.0", "+71 %"),
    ]
    assert typed(*table.total[:6]) == (
        "Day",
        "All sellers",
        "40.0",
        "38.0",
        "+2.0",
        "net +5 %, absolute 21 %",
    )


def test_a_seller_that_delivered_nothing_has_no_error_in_per_cent() -> None:
    report = sample_report()
    report["truth"]["orders"] = [
        {"order": "x", "seller": CARS, "delivered_kwh": 0.0, "settled_kwh": 1.0, "error_pct": None}
    ]
    assert truth(report).rows[0][5] == NONE


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (-0.04, "0.0"), (-1234.56, "-1,234.6"), ("2.10", "2.1"), ("<b>", "<b>")],
)
def test_numbers_are_written_as_people_read_them(value: object, said: str) -> None:
    assert typed(number(value)) == (said,)


def test_signs_and_shares() -> None:
    signs = typed(*(signed(v) for v in (1.0, 0.0, -1.0, None)))
    assert signs == ("+1.0", "0.0", "-1.0", "-")
    shares = typed(share(1.0, 4.0), share(-1.0, 4.0), share(1.0, 0.0))
    assert shares == ("25 %", "-25 %", "-")


@pytest.mark.parametrize(
    ("limit", "reference", "measured", "said"),
    [
        (-50.0, -60.0, -20.0, ""),  # a car park that draws less than it may
        (-50.0, -60.0, -58.0, "-8.00 kW off"),
        (3.0, 5.0, 0.5, ""),  # a roof that gives less than it may
        (3.0, 5.0, 4.5, "+1.50 kW off"),
        (0.0, -7.0, -6.0, "-6.00 kW off"),
        (0.0, 5.0, 4.0, "+4.00 kW off"),
        (0.0, None, -4.0, "-4.00 kW off"),
    ],
)
def test_of_a_limit_only_a_breach_is_named(
    limit: float, reference: float | None, measured: float, said: str
) -> None:
    report = sample_report()
    report["devices"] = [
        {**report["devices"][0], "control": "limit", "setpoint_kw": limit,
         "reference_kw": reference, "measured_kw": measured},
    ]  # fmt: skip
    assert [typed(row[4]) for row in exceptions(report).rows] == ([typed(said)] if said else [])


def test_a_setpoint_is_not_followed_by_less_either() -> None:
    report = sample_report()
    report["devices"] = [{**report["devices"][0], "control": "setpoint", "measured_kw": -1.0}]
    assert len(exceptions(report).rows) == 1
