"""Every sentence of the auction's rules, one by one."""

from __future__ import annotations

import pytest

from marketplace_core.procurement.auction.clearing import clear_greedily
from marketplace_core.procurement.auction.instance import side_by_side
from marketplace_core.procurement.need import Pricing
from tests.harness.auctions import awarded, cleared, instance, offer, why


def test_unmet_energy_comes_before_any_cost() -> None:
    outcome = cleared(10, offer("a", 9, 1), offer("b", 10, 1000))
    assert awarded(outcome) == {"b": (10,)}
    assert outcome.unmet_kwh == 0


def test_unmet_energy_counts_the_length_of_a_window() -> None:
    bids = (
        offer("long", [5, 0], 1, exclusive_group="g"),
        offer("short", [0, 8], 1, exclusive_group="g"),
    )
    outcome = cleared([10, 10], *bids, hours=(1.0, 0.5))
    assert awarded(outcome) == {"long": (5, 0)}
    assert outcome.unmet_kw == (5, 10)
    assert outcome.unmet_kwh == 10


def test_an_indivisible_bid_is_taken_whole_even_above_the_need() -> None:
    assert awarded(cleared(10, offer("a", 14, 100))) == {"a": (14,)}


def test_a_divisible_bid_is_cut_in_each_window_on_its_own() -> None:
    outcome = cleared([10, 2], offer("a", [20, 20], 100, divisible=True, min_kw=5))
    assert awarded(outcome) == {"a": (10, 5)}


def test_a_minimum_above_the_offer_means_the_offer() -> None:
    outcome = cleared([1, 1], offer("a", [3, 8], 100, divisible=True, min_kw=5))
    assert awarded(outcome) == {"a": (3, 5)}


def test_one_bid_of_an_exclusive_group() -> None:
    bids = [offer(name, 10, price, exclusive_group="g") for name, price in (("a", 20), ("b", 10))]
    outcome = cleared(20, *bids)
    assert awarded(outcome) == {"b": (10,)}
    assert why(outcome, "a").reason.startswith("exclusive with b, which was taken; ")


def test_a_bid_is_taken_with_what_it_requires_or_not_at_all() -> None:
    outcome = cleared(
        10, offer("a", 10, 10, requires=("dear",)), offer("b", 10, 50), offer("dear", 1, 1000)
    )
    assert awarded(outcome) == {"b": (10,)}
    assert why(outcome, "a").extra_cost == pytest.approx(0.6)
    both = cleared(
        10, offer("a", 10, 10, requires=("cheap",)), offer("b", 10, 50), offer("cheap", 1, 10)
    )
    assert sorted(awarded(both)) == ["a", "cheap"]


def test_a_required_bid_that_can_be_cut_to_nothing_is_awarded_nothing() -> None:
    needed = offer("b", 10, 1000, divisible=True)
    assert awarded(cleared(10, offer("a", 10, 10, requires=("b",)), needed)) == {
        "a": (10,),
        "b": (0,),
    }


def test_a_bid_above_the_cap_in_any_window_is_out() -> None:
    outcome = cleared(
        [10, 10], offer("a", [10, 0], [10, 301]), offer("b", [10, 10], 300), price_cap=300.0
    )
    assert awarded(outcome) == {"b": (10, 10)}
    assert why(outcome, "a").reason == "it asks 301 per MWh in window 1, above the price cap of 300"


@pytest.mark.parametrize("requires", ["b", "nobody"])
def test_a_bid_that_requires_what_is_out_is_out(requires: str) -> None:
    outcome = cleared(
        10, offer("a", 10, 10, requires=(requires,)), offer("b", 10, 400), price_cap=300.0
    )
    assert awarded(outcome) == {}
    assert why(outcome, "a").reason.startswith(f"it requires {requires}, ")


def test_a_share_is_of_the_needed_energy_not_of_the_awarded() -> None:
    bids = [offer(name, 30, price, seller=seller)
            for name, price, seller in (("a", 1, "s"), ("b", 2, "s"), ("c", 9, "t"))]  # fmt: skip
    outcome = cleared(100, *bids, max_share=0.5)
    assert sorted(awarded(outcome)) == ["a", "c"]
    assert "above the seller's limit of 50 kWh" in why(outcome, "b").reason
    assert sorted(awarded(cleared(100, *bids, max_share=0.6))) == ["a", "b", "c"]


def test_a_divisible_bid_is_cut_to_what_its_seller_may_have() -> None:
    bids = (
        offer("a", [40, 40], [1, 2], divisible=True),
        offer("b", [40, 0], 50),
        offer("c", [0, 40], 50),
    )  # fmt: skip
    outcome = cleared([40, 40], *bids, max_share=0.5)
    assert awarded(outcome) == {"a": (40, 0), "c": (0, 40)}


def test_ties_go_to_the_lower_price_then_the_earlier_id() -> None:
    assert list(awarded(cleared(5, offer("b", 5, 100), offer("a", 5, 100)))) == ["a"]
    assert list(awarded(cleared(5, offer("a", 5, 200), offer("b", 10, 100)))) == ["b"]
    outcome = cleared(5, offer("b", 5, 100, divisible=True), offer("a", 3, 100, divisible=True))
    assert awarded(outcome) == {"a": (3,), "b": (2,)}
    assert outcome.ties_settled
    assert why(cleared(5, offer("b", 5, 100), offer("a", 5, 100)), "b").kind == "tie"


def test_nothing_is_taken_only_because_it_is_free() -> None:
    assert list(awarded(cleared(5, offer("a", 5, 0), offer("b", 5, 0)))) == ["a"]


def test_paid_as_bid_each_gets_its_own_price() -> None:
    outcome = cleared(
        [10, 10], offer("a", [10, 5], [100, 200]), offer("b", [0, 5], 300), hours=(0.5, 1.0)
    )
    assert {award.bid: award.pay for award in outcome.awards} == {"a": 1.5, "b": 1.5}
    assert outcome.objective == 3.0


def test_paid_as_cleared_all_get_the_dearest_awarded_price_of_the_window() -> None:
    bids = (offer("a", [10, 5], [100, 200]), offer("b", [0, 5], 300))
    outcome = cleared([10, 10], *bids, pricing=Pricing.PAY_AS_CLEAR)
    assert outcome.prices == (100, 300)
    assert {award.bid: award.pay for award in outcome.awards} == {"a": 2.5, "b": 1.5}
    assert outcome.objective == 3.5


def test_who_asked_less_than_the_clearing_price_is_told_that_the_rejection_is_paradoxical() -> None:
    bids = (offer("block", 10, 100), offer("small", 4, 90), offer("dear", 6, 140))
    outcome = cleared(10, *bids, pricing=Pricing.PAY_AS_CLEAR)
    assert list(awarded(outcome)) == ["block"]
    assert "paradoxically rejected" in why(outcome, "small").reason
    assert "paradoxically" not in why(outcome, "dear").reason
    assert why(outcome, "small").extra_cost == pytest.approx(0.2)


def test_nobody_bids_and_nothing_is_needed() -> None:
    assert cleared([5, 0]).unmet_kw == (5, 0)
    nothing = cleared(0, offer("a", 5, 10), offer("none", 0, 10))
    assert (awarded(nothing), nothing.gap, nothing.objective) == ({}, 0, 0)
    assert "nothing is needed in any window" in why(nothing, "a").reason
    assert why(nothing, "none").kind == "nothing_offered"


def test_requirements_that_exclude_each_other_are_said() -> None:
    bids = (
        offer("a", 5, 10, requires=("b",), exclusive_group="g"),
        offer("b", 5, 10, exclusive_group="g"),
    )  # fmt: skip
    assert why(cleared(10, *bids), "a").kind == "impossible_by_itself"


def test_a_bid_alone_above_its_sellers_limit_is_told_so() -> None:
    outcome = cleared(10, offer("a", 9, 10), offer("b", 3, 99), max_share=0.5)
    assert awarded(outcome) == {"b": (3,)}
    assert "above its limit of 5 kWh" in why(outcome, "a").reason


def test_places_are_cleared_side_by_side() -> None:
    north = instance([10, 10], offer("n", [10, 10], 50), offer("both", [10, 10], 20))
    south = instance(10, offer("s", 10, 50), offer("both", 10, 90))
    merged = side_by_side({"south": south, "north": north})
    assert merged.need_kw == (10, 10, 10)
    outcome = cleared(list(merged.need_kw), *merged.bids)
    # "both" is one bid: 10 kW everywhere for 1.3, against 1.5.
    assert awarded(outcome) == {"both": (10, 10, 10)}


def test_the_greedy_rule_leaves_gaps_that_the_exact_one_closes() -> None:
    asked = instance(10, offer("a", 6, 10), offer("b", 10, 20))
    greedy = clear_greedily(asked)
    assert (awarded(greedy), greedy.unmet_kwh) == ({"a": (6,)}, 4)
    assert greedy.gap is None
    assert "indivisible 10 kW of b does not fit into the remaining 4 kW" in why(greedy, "b").reason


def test_the_greedy_rule_keeps_groups_requirements_and_shares() -> None:
    asked = instance(
        100,
        offer("a", 10, 1, exclusive_group="g"), offer("b", 10, 2, exclusive_group="g"),
        offer("c", 10, 3, requires=("d",)), offer("d", 10, 9),
        offer("e", 40, 4, seller="s", divisible=True), offer("f", 5, 5, seller="s"),
        max_share=0.3,
    )  # fmt: skip
    assert awarded(clear_greedily(asked)) == {"a": (10,), "c": (10,), "d": (10,), "e": (30,)}
