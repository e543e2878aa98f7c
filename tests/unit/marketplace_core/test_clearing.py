"""The greedy clearing: each rule has the test that fails when it is broken."""

from __future__ import annotations

from decimal import Decimal
from itertools import count

import msgspec
import pytest

from marketplace_core.intervals import Interval, instant
from marketplace_core.procurement.bid import Award, Bid
from marketplace_core.procurement.clearing import GREEDY_PRISMA, clear, contracts_from
from marketplace_core.procurement.need import Need, Pricing
from marketplace_core.registry.asset import Asset, MeasurementPoint
from marketplace_core.units import Direction, Kw

WINDOW = Interval(instant("2017-07-20T22:00:00Z"), instant("2017-07-21T04:00:00Z"))


def need(kw: float = 25.0, **changes: object) -> Need:
    base = Need(
        id="need_1", buyer="org_dso", feeder="fdr_1", direction=Direction.UP, kw=Kw(kw),
        window=WINDOW, price_cap=Decimal("600.00"), currency="GBP",
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def bid(name: str, kw: float, price: str, **changes: object) -> Bid:
    base = Bid(
        id=name, need_id="need_1", seller=f"org_{name}", assets=(f"ast_{name}",), kw=Kw(kw),
        utilisation_price=Decimal(price),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def awards(the_need: Need, *bids: Bid) -> dict[str, Award]:
    return {award.bid_id: award for award in clear(the_need, bids).awards}


def test_cheapest_bids_win_and_the_last_is_cut_to_the_remainder() -> None:
    result = awards(need(25), bid("b", 20, "300.00"), bid("a", 12.5, "200.00"))
    assert result["a"].kw == 12.5
    assert result["a"].reason == "accepted in full at rank 1"
    assert result["b"].kw == 12.5
    assert result["b"].reason == (
        "accepted at rank 2 and cut to 12.5 kW: that was what remained of the need"
    )


def test_equal_prices_are_ordered_by_id_and_awards_stand_in_merit_order() -> None:
    clearing = clear(need(), [bid("c", 1, "5"), bid("b", 1, "9"), bid("a", 1, "9")])
    assert [award.bid_id for award in clearing.awards] == ["c", "a", "b"]
    assert clearing.method == GREEDY_PRISMA.id


def test_a_bid_above_the_price_cap_is_rejected_with_both_numbers() -> None:
    result = awards(need(), bid("a", 10, "950.00"))
    assert not result["a"].accepted
    assert result["a"].kw == 0
    assert result["a"].price == Decimal("950.00")
    assert result["a"].reason == ("rejected: asked 950.00 above the price cap 600.00 GBP per MWh")


def test_a_bid_at_the_price_cap_and_at_the_minimum_size_is_admitted() -> None:
    assert awards(need(min_bid_kw=Kw(10.0)), bid("a", 10, "600.00"))["a"].accepted


def test_a_bid_below_the_minimum_size_is_rejected() -> None:
    result = awards(need(min_bid_kw=Kw(10.0)), bid("a", 9.5, "1.00"))
    assert result["a"].reason == "rejected: 9.5 kW is below the buyer's minimum of 10 kW"


def test_a_bid_for_another_need_is_rejected() -> None:
    result = awards(need(), bid("a", 10, "1.00", need_id="need_2"))
    assert result["a"].reason == "rejected: it was made for need need_2, not for need_1"


def test_rejected_bids_take_no_rank() -> None:
    result = awards(need(min_bid_kw=Kw(5.0)), bid("a", 1, "1.00"), bid("b", 5, "2.00"))
    assert result["b"].reason == "accepted in full at rank 1"


def test_an_indivisible_bid_that_does_not_fit_is_passed_over_for_the_next() -> None:
    result = awards(
        need(25),
        bid("a", 20, "100.00"),
        bid("b", 20, "200.00", divisible=False),
        bid("c", 5, "300.00", divisible=False),
    )
    assert result["b"].reason == (
        "rejected: indivisible 20 kW does not fit into the remaining 5 kW"
    )
    assert result["c"].kw == 5


def test_an_indivisible_bid_that_fits_exactly_is_taken_whole() -> None:
    assert awards(need(20), bid("a", 20, "1.00", divisible=False))["a"].kw == 20


def test_a_divisible_bid_is_not_cut_below_its_own_minimum() -> None:
    result = awards(
        need(25), bid("a", 20, "1.00"), bid("b", 20, "2.00", min_kw=Kw(8.0)), bid("c", 3, "3.00")
    )
    assert result["b"].reason == (
        "rejected: the remaining 5 kW is below this bid's own minimum of 8 kW"
    )
    assert result["c"].kw == 3


def test_a_divisible_bid_may_be_cut_to_exactly_its_minimum() -> None:
    result = awards(need(25), bid("a", 20, "1.00"), bid("b", 20, "2.00", min_kw=Kw(5.0)))
    assert result["b"].kw == 5


def test_divisible_bids_of_one_price_share_the_remainder_pro_rata() -> None:
    result = awards(need(15), bid("a", 20, "5.00"), bid("b", 10, "5.00"))
    assert (result["a"].kw, result["b"].kw) == pytest.approx((10.0, 5.0))
    assert "shared pro rata among 2 bids" in result["a"].reason
    assert "cut to 5 kW" in result["b"].reason


def test_a_bid_whose_pro_rata_share_is_below_its_minimum_leaves_the_share_to_the_others() -> None:
    result = awards(need(15), bid("a", 20, "5.00"), bid("b", 10, "5.00", min_kw=Kw(6.0)))
    assert result["a"].kw == pytest.approx(15.0)
    assert not result["b"].accepted


def test_a_bid_that_dropped_out_of_the_sharing_still_takes_what_the_others_left() -> None:
    # 12 kW over a (10, at least 9), b (1, at least 0.99), c (5): b drops out at a scale of
    # 0.75, then a at 0.8; c takes 5 and leaves 7, into which b fits and a does not.
    result = awards(
        need(12),
        bid("a", 10, "5.00", min_kw=Kw(9.0)),
        bid("b", 1, "5.00", min_kw=Kw(0.99)),
        bid("c", 5, "5.00"),
    )
    assert [result[name].kw for name in "abc"] == [0.0, 1.0, 5.0]


def test_at_one_price_indivisible_bids_are_served_before_divisible_ones_share() -> None:
    result = awards(
        need(15), bid("a", 10, "5.00"), bid("b", 10, "5.00", divisible=False), bid("c", 10, "5.00")
    )
    assert [result[name].kw for name in "abc"] == pytest.approx([2.5, 10.0, 2.5])


def test_bids_after_the_need_is_met_are_told_so() -> None:
    result = awards(
        need(10), bid("a", 10, "1.00"), bid("b", 5, "2.00"), bid("c", 5, "2.00", divisible=False)
    )
    assert result["b"].reason == "rejected: the need was already met before rank 2"
    assert result["c"].reason == "rejected: the need was already met before rank 3"


def test_unmet_need_is_stated() -> None:
    assert clear(need(25), [bid("a", 10, "1.00")]).unmet_kw == 15
    assert clear(need(25), []).unmet_kw == 25
    assert clear(need(25), [bid("a", 25, "1.00")]).unmet_kw == 0


def test_pay_as_bid_pays_each_its_own_price() -> None:
    result = awards(need(25), bid("a", 10, "100.00"), bid("b", 10, "250.00"))
    assert [result[name].price for name in "ab"] == [Decimal("100.00"), Decimal("250.00")]


def test_pay_as_clear_pays_every_winner_the_dearest_accepted_price() -> None:
    result = awards(
        need(25, pricing=Pricing.PAY_AS_CLEAR),
        bid("a", 10, "100.00"),
        bid("b", 20, "250.00"),
        bid("c", 20, "300.00"),
    )
    assert [result[name].price for name in "abc"] == [Decimal(250), Decimal(250), Decimal(300)]
    assert result["a"].reason.endswith("; paid the clearing price 250.00 per MWh")
    assert not result["c"].accepted


def test_winners_are_offered_contracts_with_the_needs_and_the_bids_terms() -> None:
    the_need = need(15)
    bids = [
        bid("a", 10, "100.00", baseline="zero"),
        bid("b", 10, "250.00"),
        bid("c", 10, "900.00"),
    ]
    assets = {
        f"ast_{name}": Asset(
            id=f"ast_{name}", organisation=f"org_{name}", feeder="fdr_1", technology="battery",
            devices=("dev",), meter="mtr", measurement_point=MeasurementPoint.DEVICE,
            up_kw=Kw(10.0),
        )
        for name in "abc"
    }  # fmt: skip
    numbers = count(1)
    first, second = contracts_from(
        the_need, clear(the_need, bids), bids, assets, lambda prefix: f"{prefix}_{next(numbers)}"
    )
    assert (first.id, first.kw, first.baseline, first.seller) == ("ctr_1", 10.0, "zero", "org_a")
    assert (second.id, second.kw, second.bid_id) == ("ctr_2", 5.0, "b")
    assert second.baseline == the_need.baseline
    assert second.utilisation_price == Decimal("250.00")
    assert second.measurement_point is MeasurementPoint.DEVICE
    assert (second.window, second.direction, second.buyer) == (WINDOW, Direction.UP, "org_dso")
    assert second.terms == "utilisation"
    assert not second.in_force


def test_an_offer_of_nothing_is_rejected() -> None:
    result = awards(need(), bid("a", 0, "1.00"), bid("b", 5, "1.00"))
    assert result["a"].reason == "rejected: 0 kW is no offer"
    assert result["b"].accepted
