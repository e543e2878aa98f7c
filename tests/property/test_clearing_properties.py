"""What the clearing conserves, whatever the bids."""

from __future__ import annotations

from decimal import Decimal
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace_core.intervals import Interval, instant
from marketplace_core.procurement.bid import Bid
from marketplace_core.procurement.clearing import clear
from marketplace_core.procurement.need import Need, Pricing
from marketplace_core.units import Direction, Kw

WINDOW = Interval(instant("2017-07-20T22:00:00Z"), instant("2017-07-21T04:00:00Z"))
CAP = Decimal(6)
TOLERANCE_KW = 1e-5


@st.composite
def one_bid(draw: st.DrawFn) -> Bid:
    kw = draw(st.integers(1, 400)) / 10
    return Bid(
        id=f"bid_{draw(st.integers(0, 10**9)):09d}",
        need_id="need_1",
        seller="org_s",
        assets=("ast",),
        kw=Kw(kw),
        utilisation_price=Decimal(draw(st.integers(0, 7))),
        divisible=draw(st.booleans()),
        min_kw=Kw(kw * draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))),
    )


BIDS = st.lists(one_bid(), max_size=12, unique_by=lambda bid: bid.id)


@st.composite
def one_need(draw: st.DrawFn) -> Need:
    return Need(
        id="need_1",
        buyer="org_b",
        feeder="fdr_1",
        direction=Direction.UP,
        kw=Kw(draw(st.integers(1, 1000)) / 10),
        window=WINDOW,
        price_cap=CAP,
        currency="GBP",
        pricing=draw(st.sampled_from(Pricing)),
        min_bid_kw=Kw(draw(st.sampled_from([0.0, 5.0]))),
    )


@settings(deadline=None, max_examples=300)
@given(one_need(), BIDS)
def test_awards_and_the_unmet_part_make_up_the_need(need: Need, bids: list[Bid]) -> None:
    clearing = clear(need, bids)
    awarded = sum(award.kw for award in clearing.awards)
    assert awarded <= need.kw + TOLERANCE_KW
    assert abs(awarded + clearing.unmet_kw - need.kw) <= TOLERANCE_KW


@settings(deadline=None, max_examples=300)
@given(one_need(), BIDS)
def test_every_award_respects_its_bid(need: Need, bids: list[Bid]) -> None:
    by_id = {bid.id: bid for bid in bids}
    clearing = clear(need, bids)
    assert sorted(award.bid_id for award in clearing.awards) == sorted(by_id)
    for award in clearing.awards:
        bid = by_id[award.bid_id]
        assert award.reason.startswith("accepted" if award.accepted else "rejected: ")
        assert award.accepted == (award.kw > 0)
        if not award.accepted:
            assert award.price == bid.utilisation_price
            continue
        assert award.kw <= bid.kw
        assert award.kw >= (bid.min_kw if bid.divisible else bid.kw) - TOLERANCE_KW
        assert bid.utilisation_price <= award.price <= CAP
        assert bid.kw >= need.min_bid_kw


@settings(deadline=None, max_examples=200)
@given(one_need(), BIDS, st.randoms(use_true_random=False))
def test_the_outcome_does_not_depend_on_the_order_of_arrival(
    need: Need, bids: list[Bid], random: Random
) -> None:
    shuffled = list(bids)
    random.shuffle(shuffled)
    assert clear(need, shuffled) == clear(need, bids)


@settings(deadline=None, max_examples=300)
@given(one_need(), BIDS)
def test_no_rejected_bid_fits_into_what_stayed_unmet(need: Need, bids: list[Bid]) -> None:
    clearing = clear(need, bids)
    by_id = {bid.id: bid for bid in bids}
    for award in clearing.awards:
        bid = by_id[award.bid_id]
        admitted = bid.utilisation_price <= CAP and bid.kw >= need.min_bid_kw
        if admitted and not award.accepted:
            least = bid.min_kw if bid.divisible else bid.kw
            assert clearing.unmet_kw < max(least, TOLERANCE_KW) + TOLERANCE_KW


@settings(deadline=None, max_examples=300)
@given(one_need(), BIDS)
def test_one_clearing_price_for_all_winners_when_paid_as_cleared(
    need: Need, bids: list[Bid]
) -> None:
    clearing = clear(need, bids)
    by_id = {bid.id: bid for bid in bids}
    won = [award for award in clearing.awards if award.accepted]
    if need.pricing is Pricing.PAY_AS_BID:
        assert all(award.price == by_id[award.bid_id].utilisation_price for award in won)
    else:
        dearest = max((by_id[award.bid_id].utilisation_price for award in won), default=None)
        assert {award.price for award in won} <= {dearest}


@settings(deadline=None, max_examples=200)
@given(one_need(), BIDS)
def test_divisible_bids_of_one_price_without_minimum_get_one_share_of_what_they_offer(
    need: Need, bids: list[Bid]
) -> None:
    by_id = {bid.id: bid for bid in bids}
    shares: dict[Decimal, list[float]] = {}
    for award in clear(need, bids).awards:
        bid = by_id[award.bid_id]
        admitted = bid.utilisation_price <= CAP and bid.kw >= need.min_bid_kw
        if admitted and bid.divisible and bid.min_kw <= 0:
            shares.setdefault(bid.utilisation_price, []).append(award.kw / bid.kw)
    for group in shares.values():
        assert max(group) - min(group) <= TOLERANCE_KW
