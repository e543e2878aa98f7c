"""The report's tables, as finished text for page and terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gateway.cli.report_bars import against
from gateway.cli.report_day import Bid, Delivery, OrderDay, incidents, shortfalls
from gateway.cli.report_faults import Finding
from gateway.cli.report_svg import span
from gateway.cli.report_words import (
    NONE,
    Json,
    clock,
    currency,
    device_name,
    event_name,
    number,
    price_unit,
    seconds,
    seller_name,
    share,
    signed,
    words,
)  # fmt: skip

Rows = Sequence[Sequence[str]]
_SIDES = ("debit", "credit")


@dataclass(frozen=True)
class Column:
    """Heading of one column."""

    name: str
    numeric: bool = False
    on_terminal: bool = True
    wide: bool = False
    """Its text may take several lines."""


@dataclass(frozen=True)
class TableView:
    """A table of finished text; a cell that is Markup is a figure."""

    title: str
    columns: Sequence[Column]
    rows: Rows
    note: str = ""
    total: Sequence[str] = ()
    """The last line, set apart; empty where there is none."""


def awards(report: Json, bids: Sequence[Bid]) -> TableView:
    """Every bid of an auction, in merit order, with its reason."""
    columns = (
        Column("#", numeric=True), Column("Seller"), Column("Outcome"),
        Column("kW", numeric=True), Column(price_unit(report), numeric=True),
        Column("Reason", wide=True),
    )  # fmt: skip
    rows = [
        (
            NONE if bid.rank is None else str(bid.rank), seller_name(report, bid.seller),
            "accepted" if bid.accepted else "rejected", number(bid.kw), number(bid.price, 2),
            bid.reason.removeprefix("rejected: "),
        )
        for bid in bids
    ]  # fmt: skip
    return TableView("Merit order", columns, rows)


def deliveries(report: Json, order: OrderDay) -> TableView:
    """Instructed and delivered energy of each contract of an order."""
    columns = (
        Column("#", numeric=True), Column("Seller"), Column("Instructed kWh", numeric=True),
        Column("Delivered kWh", numeric=True), Column("Share", numeric=True),
        Column("Against instruction", on_terminal=False),
        Column("Periods short", numeric=True), Column("Coverage", numeric=True),
    )  # fmt: skip
    reach = span([value for one in order.deliveries for value in (one.asked_kwh, one.got_kwh)])
    asked, got = (sum(values) for values in _energies(order.deliveries))
    rows = [_delivery_row(report, one, reach) for one in order.deliveries]
    total = ("", "All contracts", number(asked), number(got), share(got, asked), "", "", "")
    return TableView("Delivery per contract", columns, rows, total=total if len(rows) > 1 else ())


def _energies(rows: Sequence[Delivery]) -> tuple[list[float], list[float]]:
    return [one.asked_kwh for one in rows], [one.got_kwh for one in rows]


def _delivery_row(report: Json, one: Delivery, reach: tuple[float, float]) -> tuple[str, ...]:
    bare = any(window["baseline_kw"] is None for window in one.windows)
    got = number(one.got_kwh)
    kind = "short" if one.got_kwh < one.asked_kwh else "delivered"
    return (
        str(one.rank or NONE), seller_name(report, one.seller), number(one.asked_kwh),
        f"{got} (no baseline)" if bare else got, share(one.got_kwh, one.asked_kwh),
        against(one.got_kwh, one.asked_kwh, reach, kind),
        f"{one.short_periods} of {len(one.windows)}", share(one.coverage, 1.0),
    )  # fmt: skip


def windows(report: Json, order: OrderDay) -> TableView:
    """Every settlement period of every contract, with what its baseline stands on."""
    columns = (
        Column("#", numeric=True), Column("Seller"), Column("From"),
        Column("Instructed kW", numeric=True), Column("Baseline kW", numeric=True),
        Column("Measured kW", numeric=True), Column("Delivered kW", numeric=True),
        Column("Coverage", numeric=True), Column("Baseline and note", wide=True),
    )  # fmt: skip
    rows = [
        (
            str(own.rank or NONE), seller_name(report, own.seller), clock(report, one["start"]),
            number(one["instructed_kw"], 2),
            "no baseline" if one["baseline_kw"] is None else number(one["baseline_kw"], 2),
            number(one["measured_kw"], 2), number(one["delivered_kw"], 2),
            share(one["coverage"] or 0.0, 1.0),
            ": ".join(s for s in (str(one.get("baseline_method") or ""), str(one["note"])) if s),
        )
        for own in order.deliveries
        for one in (*own.windows, *own.rebound)
    ]  # fmt: skip
    return TableView("Settlement periods, and the hour after", columns, rows)


def flags(report: Json, found: Sequence[Finding]) -> TableView:
    """Faults and flags side by side."""
    columns = (
        Column("#", numeric=True), Column("Verdict"), Column("Kind"), Column("Device"),
        Column("Injected"), Column("Flagged"), Column("Intervals", numeric=True),
        Column("Evidence", wide=True, on_terminal=False),
    )  # fmt: skip
    rows = [
        (
            str(one.number), one.verdict, words(one.kind), device_name(one.device),
            clock(report, one.injected) + (f" to {clock(report, one.until)}" if one.until else ""),
            clock(report, one.flagged), one.after, one.evidence,
        )
        for one in found
    ]  # fmt: skip
    return TableView("Flags against injected faults", columns, rows)


def happenings(report: Json) -> TableView:
    """The closed loop: what went wrong above the devices and what was planned anew."""
    columns = (
        Column("At"),
        Column("What"),
        Column("Order"),
        Column("Why", wide=True),
    )
    rows = [(one.at, clock(report, one.at), one.name, NONE, one.title) for one in incidents(report)]
    rows += [
        (seconds(one["at"]), clock(report, one["at"]),
         f"revision {number(one['revision'], 0)}", words(one["event"]), str(one["reason"]))
        for one in shortfalls(report)
    ]  # fmt: skip
    return TableView(
        "Closed loop: revisions and incidents", columns,
        [row[1:] for row in sorted(rows, key=lambda row: row[0])],
    )  # fmt: skip


def rebound(report: Json, orders: Sequence[OrderDay]) -> TableView:
    """What came back in the time that was watched after each order."""
    columns = (
        Column("Order"), Column("Seller"), Column("Delivered kWh", numeric=True),
        Column("After kWh", numeric=True), Column("Share", numeric=True),
        Column("Strongest kW", numeric=True),
    )  # fmt: skip
    rows = []
    for order in orders:
        sellers: dict[str, list[Delivery]] = defaultdict(list)
        for one in order.deliveries:
            if one.rebound:
                sellers[one.seller].append(one)
        for seller, own in sellers.items():
            got, back = sum(o.got_kwh for o in own), sum(o.rebound_kwh for o in own)
            rows.append(
                (words(order.event) or order.id, seller_name(report, seller), number(got),
                 signed(back), share(back, got), signed(_strongest(own)))
            )  # fmt: skip
    note = "In the order's direction: minus is energy that was taken back, plus went on."
    return TableView("Rebound after each order", columns, rows, note)


def _strongest(rows: Sequence[Delivery]) -> float:
    periods: dict[str, float] = defaultdict(float)
    for one in rows:
        for window in one.rebound:
            periods[str(window["start"])] += window["delivered_kw"] or 0.0
    return max(periods.values(), key=abs)


def truth(report: Json) -> TableView:
    """Settled energy against what was really delivered."""
    columns = (
        Column("Order"), Column("Seller"), Column("Settled kWh", numeric=True),
        Column("True kWh", numeric=True), Column("Difference kWh", numeric=True),
        Column("Error", numeric=True), Column("Settled against true", on_terminal=False),
    )  # fmt: skip
    said = report.get("truth") or {}
    own = said.get("orders", ())
    reach = span([value for one in own for value in (one["settled_kwh"], one["delivered_kwh"])])
    rows = [
        (
            event_name(report, one["order"]), seller_name(report, one["seller"]), *_error(one),
            against(one["settled_kwh"], one["delivered_kwh"], reach, "settled"),
        )
        for one in own
    ]  # fmt: skip
    *figures, net = _error(said)
    if (pct := said.get("abs_error_pct")) is not None:
        net = f"net {net}, absolute {number(pct, 0)} %"
    total = ("Day", "All sellers", *figures, net, "") if rows else ()
    note = _SIGNS if rows else ""
    return TableView("Settlement error against the truth", columns, rows, note, total=total)


_SIGNS = (
    "In the net error what is too much cancels what is too little; absolute is the sum of all "
    "rows' differences without their signs. Both are parts of the energy truly delivered."
)


def _error(one: Json) -> tuple[str, str, str, str]:
    settled, delivered = one.get("settled_kwh"), one.get("delivered_kwh")
    off = None if settled is None or delivered is None else settled - delivered
    pct = one.get("error_pct")
    said = NONE if pct is None else f"{signed(pct, 0)} %"
    return number(settled), number(delivered), signed(off), said


def refused_rows(report: Json) -> TableView:
    """Rows of the meter history that were not taken, each with the rule it broke."""
    columns = (
        Column("Seller"), Column("Line", numeric=True), Column("Field"), Column("Value", wide=True),
        Column("Rule", wide=True),
    )  # fmt: skip
    imported = report.get("imported", {})
    rows = [
        (
            seller_name(report, one.get("seller", NONE)), str(one["line"]), str(one["field"]),
            str(one["error"]), str(one["rule"]),
        )
        for one in imported.get("errors", ())
    ]  # fmt: skip
    taken, refused = (number(imported.get(key), 0) for key in ("accepted", "rejected"))
    note = f"{taken} rows taken, {refused} refused."
    return TableView("Meter history: refused rows", columns, rows, note)


def ledger(report: Json) -> TableView:
    """Balances of the orders' postings."""
    entries = report.get("ledger", ())
    columns = (Column("Account"), Column("Debit", numeric=True), Column("Credit", numeric=True))
    rows = [(str(one["account"]), *(_entry(one[side]) for side in _SIDES)) for one in entries]
    sums = [sum((Decimal(str(one[side])) for one in entries), Decimal()) for side in _SIDES]
    total = ("Total", *(number(each, 2) for each in sums)) if rows else ()
    return TableView(f"Ledger, {currency(report)}".removesuffix(", "), columns, rows, total=total)


def _entry(amount: Any) -> str:
    return "" if not Decimal(str(amount)) else number(amount, 2)
