"""Statements of an organisation: what stands, once, and to the cent; windows of a stopped order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Connection, Engine

from gateway.store.delivery import end_instructions, instruct, record_settlement, windows_of
from gateway.store.market import add_order
from gateway.store.paging import Page
from gateway.store.statements import booked_line, statement, statement_page, totals
from gateway.store.viewer import Viewer
from marketplace_core.dispatch.lifecycle import OrderState
from marketplace_core.dispatch.order import Order
from marketplace_core.errors import NotFoundError
from marketplace_core.events import OrderSettled
from marketplace_core.intervals import Interval
from marketplace_core.settlement.statement import StatementLine
from marketplace_core.units import Direction, Kw

DAY = datetime(2017, 7, 20, tzinfo=UTC)
PERIOD = Interval(DAY, DAY + timedelta(days=1))
FIVE = timedelta(minutes=5)


def book(connection: Connection, order_id: str, at: datetime, *lines: StatementLine) -> None:
    settled = OrderSettled(order_id=order_id, version=lines[0].version, lines=lines, postings=())
    if lines[0].version == 1:
        order = Order(
            id=order_id, buyer="org_b", need_id="need_1", feeder="F", direction=Direction.UP,
            kw=Kw(1.0), interval=Interval(at, at + FIVE),
        )  # fmt: skip
        add_order(connection, order, OrderState.SETTLED)
    record_settlement(connection, settled, {"ctr_1": "org_b", "ctr_2": "org_b"})


def line(name: str, order_id: str, amount: str, **more: str | int) -> StatementLine:
    fields: dict[str, str | int] = {"contract_id": "ctr_1", "seller": "org_s", "version": 1,
                                    "currency": "GBP", **more}  # fmt: skip
    return StatementLine(
        id=name, order_id=order_id, item="utilisation", quantity=Decimal("1.234"), unit="kWh",
        price=Decimal("0.3"), amount=Decimal(amount), explains="", **fields,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def booked(engine: Engine) -> Engine:
    with engine.begin() as connection:
        book(
            connection,
            "ord_1",
            DAY,
            line("stl_1", "ord_1", "0.10"),
            line("stl_2", "ord_1", "7.77", contract_id="ctr_2", seller="org_t"),
        )
        book(connection, "ord_2", DAY + timedelta(hours=5), line("stl_3", "ord_2", "99.00"))
        book(connection, "ord_2", DAY, line("stl_4", "ord_2", "0.20", version=2))
        book(connection, "ord_3", DAY + timedelta(days=1), line("stl_5", "ord_3", "1000.00"))
        book(connection, "ord_4", DAY, line("stl_6", "ord_4", "5.00", currency="USD"))
    return engine  # fmt: skip


def test_a_sellers_total_is_the_sum_of_the_lines_that_stand(booked: Engine) -> None:
    with booked.connect() as connection:
        found = statement(connection, Viewer("org_s"), PERIOD)
        assert [each.line.id for each in found] == ["stl_1", "stl_4", "stl_6"]
        assert [(t.currency, t.received, t.paid) for t in totals(found, "org_s")] == [
            ("GBP", Decimal("0.30"), Decimal("0.00")), ("USD", Decimal("5.00"), Decimal("0.00")),
        ]  # fmt: skip


def test_what_the_buyer_pays_is_what_the_sellers_are_paid(booked: Engine) -> None:
    with booked.connect() as connection:
        paid = totals(statement(connection, Viewer("org_b"), PERIOD), "org_b")
        received = [
            total for seller in ("org_s", "org_t")
            for total in totals(statement(connection, Viewer(seller), PERIOD), seller)
        ]  # fmt: skip
    for each in paid:
        assert each.paid == sum(t.received for t in received if t.currency == each.currency)
    assert {each.currency: each.paid for each in paid} == {
        "GBP": Decimal("8.07"), "USD": Decimal("5.00"),
    }  # fmt: skip


def test_pages_add_up_to_the_whole(booked: Engine) -> None:
    found: list[str] = []
    after: tuple[str | int, ...] | None = ()
    with booked.connect() as connection:
        while after is not None:
            part = statement_page(connection, Viewer("org_b"), Page(2, after), PERIOD)
            found += [each.line.id for each in part.items]
            after = part.following
    assert found == ["stl_1", "stl_2", "stl_4", "stl_6"]


def test_a_line_is_its_sides_only(booked: Engine) -> None:
    with booked.connect() as connection:
        for name in ("org_b", "org_s"):
            assert booked_line(connection, Viewer(name), "stl_1").buyer == "org_b"
        for name in ("org_t", ""):
            with pytest.raises(NotFoundError):
                booked_line(connection, Viewer(name), "stl_1")


def test_from_the_stop_on_nothing_is_instructed(engine: Engine) -> None:
    periods = [Interval(DAY + n * FIVE, DAY + (n + 1) * FIVE) for n in range(4)]
    with engine.begin() as connection:
        span = Interval(periods[0].start, periods[-1].end)
        for order in ("ord_1", "ord_2"):
            instruct(connection, order, "ctr_1", periods, kw=8.0, span=span)
        end_instructions(connection, "ord_1", DAY + FIVE + timedelta(seconds=75))
        instructed = [each.instructed_kw for each in windows_of(connection, "ord_1")]
        assert instructed == [8.0, 2.0, 0.0, 0.0]
        assert [each.instructed_kw for each in windows_of(connection, "ord_2")] == [8.0] * 4
