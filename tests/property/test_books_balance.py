"""The books balance after any sequence of late data."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace_core.dispatch.order import Order
from marketplace_core.events import DeliveryVerified, OrderSettled
from marketplace_core.intervals import Interval, instant
from marketplace_core.procurement.contract import Contract
from marketplace_core.registry.asset import MeasurementPoint
from marketplace_core.settlement.booking import settle
from marketplace_core.settlement.ledger import balance, check
from marketplace_core.settlement.statement import Posting
from marketplace_core.units import Direction, Kw, Kwh

START = instant("2017-07-21T00:00:00Z")
STEP = timedelta(minutes=15)
PERIODS = 4
SELLERS = ("org_s", "org_t", "org_s")
ORDER = Order(
    id="ord_1", buyer="org_b", need_id="need_1", feeder="fdr_1", direction=Direction.UP,
    kw=Kw(30.0), interval=Interval(START, START + PERIODS * STEP),
)  # fmt: skip
PRICES = st.decimals(Decimal(0), Decimal(6000), places=4)
DELIVERED = st.floats(-20.0, 20.0)


def contract(index: int, price: Decimal) -> Contract:
    return Contract(
        id=f"ctr_{index}", need_id="need_1", bid_id="bid", buyer="org_b", seller=SELLERS[index],
        feeder="fdr_1", direction=Direction.UP, kw=Kw(10.0), window=ORDER.interval,
        utilisation_price=price, currency="GBP", assets=("ast",),
        measurement_point=MeasurementPoint.DEVICE, baseline="zero", terms="utilisation",
    )  # fmt: skip


def verified(index: int, period: int, version: int, kwh: float) -> DeliveryVerified:
    return DeliveryVerified(
        order_id="ord_1", contract_id=f"ctr_{index}",
        period=Interval(START + period * STEP, START + (period + 1) * STEP), version=version,
        instructed_kw=Kw(10.0), measured_kw=Kw(0.0), baseline_kw=Kw(0.0),
        delivered_kwh=Kwh(kwh), coverage=1.0, baseline_method="zero", baseline_days=(),
    )  # fmt: skip


LATE = st.tuples(
    st.integers(0, len(SELLERS) - 1), st.integers(0, PERIODS - 1), st.floats(-20.0, 20.0)
)


@settings(deadline=None, max_examples=150)
@given(
    prices=st.tuples(PRICES, PRICES, PRICES),
    first=st.lists(DELIVERED, min_size=12, max_size=12),
    late=st.lists(LATE, max_size=6),
)
def test_books_balance_and_show_the_newest_lines_alone(
    prices: tuple[Decimal, Decimal, Decimal],
    first: list[float],
    late: list[tuple[int, int, float]],
) -> None:
    contracts = {f"ctr_{index}": contract(index, price) for index, price in enumerate(prices)}
    numbers = count(1)
    newest = {
        (index, period): verified(index, period, 1, first[index * PERIODS + period])
        for index in range(len(SELLERS))
        for period in range(PERIODS)
    }
    books: list[Posting] = []
    for version, update in enumerate([None, *late], start=1):
        if update is not None:
            index, period, kwh = update
            newest[index, period] = verified(index, period, version, kwh)
        settled = settle(
            ORDER, contracts, newest.values(), version=version,
            new_id=lambda prefix: f"{prefix}_{next(numbers)}", previous=tuple(books),
        )  # fmt: skip
        assert check(settled.postings) == ()
        books += settled.postings
        assert_books_show(books, settled)


def assert_books_show(books: list[Posting], settled: OrderSettled) -> None:
    assert check(books) == ()
    totals = balance(books)
    assert sum(totals.values()) == 0
    owed = {seller: Decimal(0) for seller in SELLERS}
    for line in settled.lines:
        assert line.version == settled.version
        assert abs(line.quantity * line.price - line.amount) <= Decimal("0.005")
        assert 0 <= line.quantity <= Decimal("10.000")
        owed[line.seller] += line.amount
    for seller, amount in owed.items():
        assert totals.get((f"payable:{seller}", "GBP"), Decimal(0)) == -amount
    cost = totals.get(("flexibility_cost:org_b", "GBP"), Decimal(0))
    assert cost == sum(owed.values())


@settings(deadline=None, max_examples=100)
@given(price=PRICES, delivered=st.lists(DELIVERED, min_size=PERIODS, max_size=PERIODS))
def test_more_delivery_never_pays_less(price: Decimal, delivered: list[float]) -> None:
    the_contract = contract(0, price)

    def paid(extra: float) -> Decimal:
        facts = [verified(0, number, 1, kwh + extra) for number, kwh in enumerate(delivered)]
        settled = settle(
            ORDER, {"ctr_0": the_contract}, facts, version=1, new_id=lambda prefix: prefix
        )
        return settled.lines[0].amount

    assert Decimal(0) <= paid(0.0) <= paid(0.5) <= paid(100.0)
