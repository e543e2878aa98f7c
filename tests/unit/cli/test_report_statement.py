"""The statement: totals per seller add up; the CSV is exact and any reader takes it."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.report_day import order_days
from gateway.cli.report_statement import FIELDS, Statement, money, statement, statement_csv
from tests.harness.day_report import CAMPUS, sample_report

PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def shown() -> Statement:
    report = sample_report()
    return statement(report, order_days(report))


def test_lines_of_each_seller_add_up_to_its_total_and_all_to_the_whole() -> None:
    said = shown()
    for bill in said.bills:
        assert f"{sum(Decimal(line.amount) for line in bill.lines)} USD" == bill.total
    totals = [Decimal(bill.total.removesuffix(" USD")) for bill in said.bills]
    assert f"{sum(totals)} USD" == said.total == "3.52 USD"
    assert [bill.energy for bill in said.bills] == ["28.000 kWh", "12.000 kWh", "0.000 kWh"]


def test_a_line_says_what_it_stands_on_and_keeps_every_word_of_its_explanation() -> None:
    line = shown().bills[0].lines[1]
    assert (line.rank, line.order, line.price) == ("2", "midday", "0.095 USD/kWh")
    assert line.basis == "4 periods, 4 below instruction, baseline caiso_10_of_10"
    assert [part[:24] for part in line.explains] == [
        "Baseline caiso_10_of_10 ", "Periods: 2017-07-20T19:0", "2017-07-20T19:15Z 5.000 ",
    ]  # fmt: skip


def test_a_ledger_that_differs_is_said_loudly() -> None:
    report = sample_report()
    report["ledger"][1]["credit"] = "1.97"
    assert "DIFFERS" in statement(report, order_days(report)).agrees


def test_currencies_are_never_added_to_one_another() -> None:
    lines = sample_report()["statement"]
    lines[0]["currency"] = "EUR"
    assert money(lines) == "1.20 EUR, 2.32 USD"


def test_csv_has_the_columns_and_exact_decimals() -> None:
    text = statement_csv(sample_report()["statement"])
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == FIELDS
    assert [row["quantity"] for row in rows] == ["20.000", "8.000", "12.000", "0.000"]
    assert [row["price"] for row in rows] == ["0.060", "0.095", "0.130", "0.240"]
    assert rows[3]["seller"] == CAMPUS


def test_csv_ends_its_records_with_cr_lf_and_a_run_without_lines_has_its_heading() -> None:
    assert statement_csv([]) == ",".join(FIELDS) + "\r\n"
    assert statement_csv(sample_report()["statement"]).count("\r\n") == 5


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(FIELDS, PLAIN)), max_size=5))
def test_any_text_comes_back_from_the_csv_as_it_went_in(lines: list[dict[str, str]]) -> None:
    text = statement_csv(lines)
    back = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    numbers = ("quantity", "price", "amount")
    assert [
        {n: v if n in numbers or v[:2][1:] not in tuple("=+-@\t\r") or v[0] != "'" else v[1:]
         for n, v in row.items()} for row in back
    ] == [
        {n: v[1:] if n not in numbers and v[:1] == "'" and v[1:2] in tuple("=+-@\t\r") else v
         for n, v in line.items()} for line in lines
    ]  # fmt: skip


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_spreadsheet_runs_what_a_seller_wrote(evil: str) -> None:
    line = {**sample_report()["statement"][0], "seller": evil, "explains": evil, "amount": "-1.50"}
    row = next(csv.DictReader(io.StringIO(statement_csv([line]), newline="")))
    assert row["seller"] == row["explains"] == f"'{evil}"
    assert row["amount"] == "-1.50"


def test_decimals_are_never_written_with_an_exponent() -> None:
    line = {**sample_report()["statement"][0], "amount": Decimal("1E+3")}
    assert ",1000,USD," in statement_csv([line])
