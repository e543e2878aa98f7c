"""The programme index: what a portfolio would earn, whom a programme takes, what is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_core.errors import RejectedError
from marketplace_core.programmes.earnings import Assumptions, Portfolio, compare, earning
from marketplace_core.programmes.programme import (
    Payment,
    PaymentKind,
    Programme,
    validate_programme,
)
from marketplace_core.programmes.search import Wanted, search
from marketplace_core.provenance import Confidence, Source
from marketplace_core.units import Direction, Kw, Kwh

K = PaymentKind
HUNDRED = Portfolio(kw=Kw(100.0), devices=20, stored_kwh=Kwh(250.0))
ALL = Assumptions(delivered_share=1.0)


def source(confidence: Confidence = Confidence.READ, as_of: str = "2026-01") -> Source:
    return Source(states="all", work="the operator", as_of=as_of, confidence=confidence)


def programme(*payments: Payment, **fields: Any) -> Programme:
    made: dict[str, Any] = {
        "id": "one", "name": "One", "operator": "Somebody", "country": "US", "currency": "USD",
        "url": "https://example.org", "sources": (source(),), "payments": payments,
    }  # fmt: skip
    return Programme(**(made | fields))


def pays(kind: PaymentKind, amount: str | None, **fields: Any) -> Payment:
    return Payment(kind=kind, amount=None if amount is None else Decimal(amount), **fields)


@pytest.mark.parametrize(
    ("payment", "fields", "per_kw"),
    [
        (pays(K.PER_KW_MONTH, "18"), {"season": (5, 6, 7, 8, 9)}, "90.00"),
        (pays(K.PER_KW_MONTH, "1"), {}, "12.00"),
        (pays(K.PER_KW_SEASON, "275"), {}, "275.00"),
        (pays(K.PER_KW_YEAR, "110"), {}, "110.00"),
        (pays(K.PER_KWH, "2"), {"hours_per_year": 60.0}, "120.00"),
        (pays(K.PER_KWH, "2"), {"events_per_year": 10, "longest_event_h": 3.0}, "60.00"),
        (pays(K.UPFRONT_PER_KW, "850"), {"term_years": 10.0}, "85.00"),
        (pays(K.UPFRONT_PER_KWH_STORED, "230"), {"term_years": 1.0}, "575.00"),
        (pays(K.UPFRONT_PER_KWH_STORED, "230", most=Decimal(1000)), {"term_years": 1.0}, "200.00"),
        (pays(K.UPFRONT_PER_DEVICE, "50"), {"term_years": 2.0}, "5.00"),
        (pays(K.PER_DEVICE_YEAR, "35"), {}, "7.00"),
    ],
)
def test_a_payment_is_turned_into_a_year_of_one_kilowatt(
    payment: Payment, fields: dict[str, Any], per_kw: str
) -> None:
    found = earning(programme(payment, **fields), HUNDRED, ALL)
    assert found.per_kw_year == Decimal(per_kw)
    assert found.open_points == ()
    assert len(found.parts) == 1


def test_an_auction_needs_an_assumed_price_and_its_ceiling_holds() -> None:
    auction = programme(pays(K.AUCTION_PER_MWH, "500"), hours_per_year=10.0)
    unknown = earning(auction, HUNDRED, ALL)
    assert unknown.per_kw_year is None
    assert "assume a price" in unknown.open_points[0]
    dear = msgspec.structs.replace(ALL, price_per_mwh=Decimal(900))
    assert earning(auction, HUNDRED, dear).per_kw_year == Decimal("5.00")  # 10 h of 500 per MWh


def test_what_is_not_known_is_said_and_never_guessed() -> None:
    found = earning(programme(pays(K.PER_KWH, "2"), pays(K.PER_KW_YEAR, None)), HUNDRED, ALL)
    assert found.per_kw_year is None
    assert [each.partition(":")[2].strip() for each in found.open_points] == [
        "hours of events are not known; assume them", "the amount is not known",
    ]  # fmt: skip
    assert earning(programme(), HUNDRED, ALL).open_points == ("what it pays is not in the index",)


def test_nobody_assumes_more_events_than_a_programme_allows() -> None:
    assumed = msgspec.structs.replace(ALL, event_hours=500.0)
    found = earning(programme(pays(K.PER_KWH, "1"), hours_per_year=60.0), HUNDRED, assumed)
    assert found.per_kw_year == Decimal("60.00")
    assert "it allows no more" in found.assumed[-1]


@pytest.mark.parametrize(
    ("fields", "portfolio", "why"),
    [
        ({"minimum_kw": 1000.0}, {}, "it begins at 1000 kW"),
        ({"maximum_kw": 50.0}, {}, "it ends at 50 kW"),
        ({}, {"country": "GB"}, "it is for US, not for GB"),
        ({}, {"direction": Direction.DOWN}, "it wants flexibility UP"),
        ({"technologies": ("battery",)}, {"technology": "thermostat"}, "it takes battery only"),
        ({"technologies": ("battery",)}, {"technology": "battery"}, None),
    ],
)
def test_a_misfit_is_said_in_words(
    fields: dict[str, Any], portfolio: dict[str, Any], why: str | None
) -> None:
    mine = msgspec.structs.replace(HUNDRED, **portfolio)
    assert earning(programme(**fields), mine, ALL).misfits == (() if why is None else (why,))


def test_what_fits_comes_first_and_currencies_are_never_mixed() -> None:
    poor = programme(pays(K.PER_KW_YEAR, "5"), id="poor")
    rich = programme(pays(K.PER_KW_YEAR, "50"), id="rich")
    pounds = programme(pays(K.PER_KW_YEAR, "9"), id="pounds", currency="GBP")
    large = programme(pays(K.PER_KW_YEAR, "99"), id="large", minimum_kw=1000.0)
    dark = programme(id="dark")
    found = compare([large, dark, poor, pounds, rich], HUNDRED, ALL)
    assert [each.programme_id for each in found] == ["pounds", "rich", "poor", "dark", "large"]


@given(
    share=st.floats(0.0, 1.0), kw=st.floats(0.5, 1e5), amount=st.integers(0, 10_000),
)  # fmt: skip
def test_a_smaller_share_never_earns_more(share: float, kw: float, amount: int) -> None:
    one = programme(pays(K.PER_KW_YEAR, str(amount)))
    part = earning(one, Portfolio(kw=Kw(kw)), Assumptions(delivered_share=share)).per_kw_year
    whole = earning(one, Portfolio(kw=Kw(kw)), ALL).per_kw_year
    assert part is not None
    assert whole is not None
    assert part <= whole


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": "two words"}, "id"), ({"country": "usa"}, "country"),
        ({"currency": "$"}, "currency"),
        ({"sources": ()}, "sources"), ({"url": "http://a"}, "url"), ({"season": (0,)}, "season"),
        ({"season": (5, 5)}, "season"), ({"first_hour": 16}, "first_hour"),
        ({"minimum_kw": 9.0, "maximum_kw": 1.0}, "minimum_kw"), ({"notice_h": 0.0}, "notice_h"),
        ({"payments": (pays(K.PER_KWH, "-1"),)}, "payments"),
        ({"payments": (pays(K.UPFRONT_PER_KW, "1"),)}, "term_years"),
    ],
)  # fmt: skip
def test_an_entry_that_breaks_a_rule_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(RejectedError) as refused:
        validate_programme(programme(**fields))
    assert refused.value.field == field
    assert refused.value.rule


@pytest.mark.parametrize(
    ("portfolio", "assumed", "field"),
    [
        ({"kw": 0.0}, {}, "kw"), ({"devices": 0}, {}, "devices"),
        ({"stored_kwh": -1.0}, {}, "stored_kwh"), ({}, {"delivered_share": 1.1}, "delivered_share"),
        ({}, {"event_hours": 9000.0}, "event_hours"),
    ],
)  # fmt: skip
def test_what_gives_no_figure_is_refused(
    portfolio: dict[str, Any], assumed: dict[str, Any], field: str
) -> None:
    mine = msgspec.structs.replace(HUNDRED, **portfolio)
    with pytest.raises(RejectedError) as refused:
        compare([], mine, msgspec.structs.replace(ALL, **assumed))
    assert refused.value.field == field


def test_search_takes_every_word_and_any_case() -> None:
    one = programme(id="a", name="Peak Saver", region="Vermont", technologies=("battery",))
    two = programme(id="b", name="Peak Rewards", region="Texas", country="US", minimum_kw=500.0)
    both = [two, one]
    assert [each.id for each in search(both, Wanted(text="peak"))] == ["a", "b"]
    assert [each.id for each in search(both, Wanted(text="VERMONT peak"))] == ["a"]
    assert [each.id for each in search(both, Wanted(technology="thermostat"))] == ["b"]
    assert [each.id for each in search(both, Wanted(kw=100.0))] == ["a"]
    assert search(both, Wanted(country="GB")) == []
    assert search(both, Wanted(direction=Direction.DOWN)) == []


def test_confidence_of_an_entry_is_that_of_its_weakest_part() -> None:
    one = programme(sources=(source(), source(Confidence.OWN, "2024-03")))
    assert one.confidence is Confidence.OWN
    assert one.as_of == "2026-01"
