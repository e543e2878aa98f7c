"""The statement: its lines per seller on the page, and all of them as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gateway.cli.report_day import Delivery, OrderDay
from gateway.cli.report_words import Json, number, seller_name, words

FIELDS = (
    "order", "contract", "seller", "line", "quantity", "unit", "price", "amount", "currency",
    "explains",
)  # fmt: skip
_NUMBERS = frozenset({"quantity", "price", "amount"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet run a cell instead of showing it."""
_EACH_PERIOD = re.compile(r";\s+(?=\d{4}-\d\d-\d\dT)|(?<=\.)\s+(?=Periods: )")


@dataclass(frozen=True)
class Line:
    """One line of a statement, as it is shown."""

    rank: str
    order: str
    item: str
    quantity: str
    price: str
    amount: str
    basis: str
    """What it stands on, in a few words."""
    explains: Sequence[str]
    """The whole explanation, a part for every settlement period."""


@dataclass(frozen=True)
class Bill:
    """What one seller is paid in one currency."""

    seller: str
    lines: Sequence[Line]
    energy: str
    total: str


@dataclass(frozen=True)
class Statement:
    """Bills of all sellers, and whether they are what the ledger holds."""

    bills: Sequence[Bill]
    total: str
    count: int
    agrees: str


def statement_csv(lines: Iterable[Json]) -> str:
    """Lines as RFC 4180 CSV; decimals exact, as they were booked.

    Text that a spreadsheet would take for a formula is led by an apostrophe.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(FIELDS)
    writer.writerows([_cell(name, line.get(name)) for name in FIELDS] for line in lines)
    return stream.getvalue()


def statement(report: Json, orders: Sequence[OrderDay]) -> Statement:
    """The statement grouped by seller and currency."""
    contracts = {(day.id, one.contract): (day, one) for day in orders for one in day.deliveries}
    groups: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for line in report.get("statement", ()):
        groups[str(line["seller"]), str(line["currency"])].append(line)
    bills = [
        Bill(
            seller=seller_name(report, seller),
            lines=[_line(line, contracts) for line in own],
            energy=_energy(own), total=f"{number(_total(own), 2)} {currency}",
        )
        for (seller, currency), own in groups.items()
    ]  # fmt: skip
    everything = report.get("statement", ())
    return Statement(bills, money(everything), len(everything), _agrees(report))


def money(lines: Iterable[Json]) -> str:
    """Sum of amounts, by currency; empty for no lines."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for line in lines:
        sums[str(line["currency"])] += Decimal(str(line["amount"]))
    return ", ".join(f"{number(total, 2)} {currency}" for currency, total in sums.items())


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in _NUMBERS:
        return f"{value:f}" if isinstance(value, Decimal) else str(value)
    said = str(value)
    return f"'{said}" if said.startswith(_FORMULA) else said


def _line(line: Json, contracts: dict[tuple[str, str], tuple[OrderDay, Delivery]]) -> Line:
    known = contracts.get((str(line.get("order")), str(line.get("contract"))))
    day, own = known or (None, None)
    return Line(
        rank=str(own.rank) if own and own.rank else "",
        order=words(day.event or day.id) if day else str(line.get("order", "")),
        item=words(line["line"]),
        quantity=f"{line['quantity']} {line['unit']}",
        price=f"{line['price']} {line['currency']}/{line['unit']}",
        amount=number(line["amount"], 2),
        basis=_basis(own),
        explains=[part for part in _EACH_PERIOD.split(str(line["explains"])) if part],
    )  # fmt: skip


def _basis(own: Delivery | None) -> str:
    """min(delivered, instructed) over the periods: how many of them, and how many fell short."""
    if own is None:
        return ""
    methods = sorted({str(one.get("baseline_method") or "") for one in own.windows} - {""})
    short = own.short_periods
    said = f"{short or 'none'} below instruction"
    return ", ".join(
        [f"{len(own.windows)} periods", said, *(f"baseline {method}" for method in methods)]
    )


def _energy(lines: Sequence[Json]) -> str:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for line in lines:
        sums[str(line["unit"])] += Decimal(str(line["quantity"]))
    return ", ".join(f"{total:f} {unit}" for unit, total in sums.items())


def _total(lines: Iterable[Json]) -> Decimal:
    return sum((Decimal(str(line["amount"])) for line in lines), Decimal())


def _agrees(report: Json) -> str:
    """Whether what is payable in the ledger is what the lines come to."""
    payable = [e for e in report.get("ledger", ()) if str(e["account"]).startswith("payable:")]
    if not payable:
        return ""
    booked = sum((Decimal(str(e["credit"])) - Decimal(str(e["debit"])) for e in payable), Decimal())
    due = _total(report.get("statement", ()))
    if booked == due:
        return f"The ledger holds the same: {number(booked, 2)} payable"
    return f"The ledger DIFFERS: {number(booked, 2)} payable"
