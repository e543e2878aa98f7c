"""Terms, statement lines and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import count

import msgspec
import pytest

from marketplace_core.dispatch.order import Order
from marketplace_core.errors import RejectedError
from marketplace_core.events import DeliveryVerified, OrderSettled
from marketplace_core.intervals import Interval, instant
from marketplace_core.procurement.contract import Contract
from marketplace_core.registry.asset import MeasurementPoint
from marketplace_core.settlement.booking import settle
from marketplace_core.settlement.ledger import balance, check, reversal
from marketplace_core.settlement.statement import Posting
from marketplace_core.settlement.terms import TERMS, terms_of
from marketplace_core.units import Direction, Kw, Kwh

START = instant("2017-07-21T00:00:00Z")
HALF = timedelta(minutes=30)
HOUR = Interval(START, START + 2 * HALF)
ORDER = Order(
    id="ord_1", buyer="org_b", need_id="need_1", feeder="fdr_1", direction=Direction.UP,
    kw=Kw(4.0), interval=HOUR, revision=1,
)  # fmt: skip
CONTRACT = Contract(
    id="ctr_1", need_id="need_1", bid_id="bid_1", buyer="org_b", seller="org_s", feeder="fdr_1",
    direction=Direction.UP, kw=Kw(4.0), window=HOUR, utilisation_price=Decimal("250.00"),
    currency="GBP", assets=("ast",), measurement_point=MeasurementPoint.SITE_NET,
    baseline="caiso_10_of_10", terms="utilisation",
)  # fmt: skip
OTHER = msgspec.structs.replace(CONTRACT, id="ctr_0", seller="org_t")


def delivered(kwh: float, index: int = 0, **changes: object) -> DeliveryVerified:
    base = DeliveryVerified(
        order_id="ord_1", revision=1, contract_id="ctr_1",
        period=Interval(START + index * HALF, START + (index + 1) * HALF), version=1,
        instructed_kw=Kw(4.0), measured_kw=Kw(0.0), baseline_kw=Kw(0.0),
        delivered_kwh=Kwh(kwh), coverage=1.0, baseline_method="caiso_10_of_10",
        baseline_days=("2017-07-19", "2017-07-18"),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def ids() -> Callable[[str], str]:
    numbers = count(1)
    return lambda prefix: f"{prefix}_{next(numbers)}"


def book(
    *deliveries: DeliveryVerified,
    contract: Contract = CONTRACT,
    version: int = 1,
    previous: Sequence[Posting] = (),
    new_id: Callable[[str], str] | None = None,
) -> OrderSettled:
    return settle(
        ORDER, {contract.id: contract}, deliveries, version=version, new_id=new_id or ids(),
        previous=previous,
    )  # fmt: skip


def test_each_period_pays_the_lesser_of_delivered_and_instructed() -> None:
    # Instructed 2 kWh a period: 1.5 counts, of 9 only 2 count.
    line = book(delivered(1.5), delivered(9.0, 1)).lines[0]
    assert line.quantity == Decimal("3.500")
    assert (line.unit, line.price) == ("kWh", Decimal("0.25000"))
    assert line.amount == Decimal("0.88")


def test_overdelivery_in_one_period_does_not_make_up_for_another() -> None:
    assert book(delivered(0.0), delivered(4.0, 1)).lines[0].quantity == Decimal("2.000")


def test_a_period_that_went_the_wrong_way_costs_nothing() -> None:
    assert book(delivered(-5.0), delivered(1.0, 1)).lines[0].quantity == Decimal("1.000")


def test_the_line_multiplies_exactly_and_is_rounded_once_half_even() -> None:
    for kwh, cents in ((0.02, "0.00"), (0.06, "0.02"), (0.021, "0.01")):
        line = book(delivered(kwh)).lines[0]
        # 0.02 kWh x 0.25 = 0.0050 and 0.06 x 0.25 = 0.0150: both are ties.
        assert line.amount == Decimal(cents)
        assert abs(line.quantity * line.price - line.amount) <= Decimal("0.005")


def test_periods_are_not_rounded_to_the_cent_one_by_one() -> None:
    # 0.016 kWh a period is 0.4 pence: nothing alone, one penny together.
    assert book(delivered(0.016), delivered(0.016, 1)).lines[0].amount == Decimal("0.01")


def test_a_price_per_megawatt_hour_becomes_one_per_kilowatt_hour_without_loss() -> None:
    dear = msgspec.structs.replace(CONTRACT, utilisation_price=Decimal("123.4567"))
    line = book(delivered(2.0), contract=dear).lines[0]
    assert line.price * 1000 == Decimal("123.4567")
    assert line.amount == Decimal("0.25")


def test_the_line_explains_itself() -> None:
    line = book(delivered(1.5), delivered(0.0, 1, note="the meter was silent")).lines[0]
    assert "2017-07-21T00:00Z 1.500 kWh (delivered 1.500, instructed 2.000, version 1)" in (
        line.explains
    )
    assert "[the meter was silent]" in line.explains
    assert "Baseline caiso_10_of_10 over 2017-07-18, 2017-07-19." in line.explains
    assert "Terms utilisation:" in line.explains
    assert "SSEN TRANSITION [read, 2026-11]" in line.explains


def test_the_line_names_what_it_belongs_to() -> None:
    line = book(delivered(2.0), version=4).lines[0]
    assert (line.order_id, line.contract_id, line.seller) == ("ord_1", "ctr_1", "org_s")
    assert (line.version, line.item, line.currency) == (4, "utilisation", "GBP")


def test_a_line_is_booked_as_cost_of_the_buyer_and_debt_to_the_seller() -> None:
    settled = book(delivered(2.0))
    assert balance(settled.postings) == {
        ("flexibility_cost:org_b", "GBP"): Decimal("0.50"),
        ("payable:org_s", "GBP"): Decimal("-0.50"),
    }
    assert {posting.line_id for posting in settled.postings} == {settled.lines[0].id}
    assert check(settled.postings) == ()
    assert (settled.order_id, settled.revision, settled.version) == ("ord_1", 1, 1)


def test_nothing_delivered_has_a_line_and_no_posting() -> None:
    settled = book(delivered(0.0))
    assert settled.lines[0].amount == 0
    assert settled.postings == ()


def test_a_called_contract_without_any_delivery_still_has_its_line() -> None:
    assert book().lines[0].quantity == 0


def test_a_newer_delivery_of_a_period_counts_whatever_the_order() -> None:
    old, new = delivered(2.0), delivered(1.0, version=2)
    assert book(old, new).lines[0].quantity == Decimal("1.000")
    assert book(new, old).lines[0].quantity == Decimal("1.000")


def test_each_contract_has_its_own_line() -> None:
    contracts = {"ctr_1": CONTRACT, "ctr_0": OTHER}
    settled = settle(
        ORDER, contracts, [delivered(2.0), delivered(1.0, contract_id="ctr_0")], version=1,
        new_id=ids(),
    )  # fmt: skip
    assert [(line.contract_id, line.quantity) for line in settled.lines] == [
        ("ctr_0", Decimal("1.000")), ("ctr_1", Decimal("2.000")),
    ]  # fmt: skip
    assert len({posting.transaction_id for posting in settled.postings}) == 2
    assert balance(settled.postings)["flexibility_cost:org_b", "GBP"] == Decimal("0.75")


def test_a_superseding_version_reverses_the_old_lines_and_books_the_new() -> None:
    new_id = ids()
    first = book(delivered(2.0), new_id=new_id)
    second = book(delivered(1.0, version=2), version=2, previous=first.postings, new_id=new_id)
    books = [*first.postings, *second.postings]
    assert check(books) == ()
    assert balance(books) == {
        ("flexibility_cost:org_b", "GBP"): Decimal("0.25"),
        ("payable:org_s", "GBP"): Decimal("-0.25"),
    }
    of_the_old_line = [p for p in books if p.line_id == first.lines[0].id]
    assert set(balance(of_the_old_line).values()) == {Decimal(0)}


def test_a_line_that_was_reversed_is_not_reversed_again() -> None:
    first = book(delivered(2.0))
    back = reversal(first.postings, "txn_back")
    assert len(back) == 2
    assert reversal([*first.postings, *back], "txn_again") == ()


def test_a_transaction_that_does_not_balance_is_found() -> None:
    first = book(delivered(2.0))
    broken = check(first.postings[:1])
    assert [(each.currency, each.sum) for each in broken] == [("GBP", Decimal("0.50"))]
    assert broken[0].transaction_id == first.postings[0].transaction_id


def test_two_currencies_never_make_up_for_each_other() -> None:
    cost, owed = book(delivered(2.0)).postings
    dollars = msgspec.structs.replace(owed, currency="USD")
    assert len(check([cost, dollars])) == 2
    assert len(balance([cost, dollars])) == 2


def test_deliveries_of_another_order_or_contract_are_bugs() -> None:
    with pytest.raises(ValueError, match="ord_2"):
        book(delivered(1.0, order_id="ord_2"))
    with pytest.raises(KeyError):
        book(delivered(1.0, contract_id="ctr_9"))


def test_unknown_terms_are_refused_by_name() -> None:
    strange = msgspec.structs.replace(CONTRACT, terms="handshake")
    with pytest.raises(RejectedError, match="handshake"):
        terms_of(strange)
    assert terms_of(CONTRACT) is TERMS["utilisation"]
