"""The report's tables, and how numbers and times are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

Json = Mapping[str, Any]
Rows = Sequence[Sequence[str]]
NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
_SIDES = ("debit", "credit")


@dataclass(frozen=True)
class Column:
    """Heading of one column."""

    name: str
    numeric: bool = False
    on_terminal: bool = True


@dataclass(frozen=True)
class TableView:
    """A table of finished text."""

    title: str
    columns: Sequence[Column]
    rows: Rows
    note: str = ""


def local(report: Json, at: str | float | datetime) -> datetime:
    """An instant (ISO text, Unix seconds or datetime) in the market's time zone."""
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    elif not isinstance(at, datetime):
        at = datetime.fromtimestamp(at, UTC)
    return at.astimezone(ZoneInfo(report.get("market", {}).get("timezone", "UTC")))


def number(value: Any, digits: int = 1) -> str:
    """A number with a real minus sign; a dash for None."""
    if value is None:
        return NONE
    text = f"{Decimal(str(value)):,.{digits}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def contracts(report: Json) -> list[tuple[str, list[Json]]]:
    """Windows of each contract, with its seller, in order of time."""
    windows = sorted(
        report.get("windows", ()), key=lambda w: (str(w["contract"]), local(report, w["start"]))
    )
    grouped = groupby(windows, key=lambda w: (str(w["contract"]), str(w["seller"])))
    return [(seller, list(rows)) for (_, seller), rows in grouped]


def plain(name: str) -> str:
    """An organisation's id as people say it."""
    bare = str(name).removeprefix("org_")
    return bare.replace("_", " ").title() if bare != name else bare


def tables(report: Json) -> dict[str, TableView]:
    """Every table of the page, by name."""
    return {
        "awards": _awards(report.get("awards", ())),
        "devices": _devices(report.get("devices", ())),
        "contracts": _contracts(report),
        "windows": _windows(report),
        "statement": _statement(report.get("statement", ())),
        "ledger": _ledger(report.get("ledger", ())),
        "flags": _flags(report),
    }


def _awards(awards: Iterable[Json]) -> TableView:
    columns = (
        Column("Seller"), Column("Outcome"), Column("kW", numeric=True),
        Column("Price per MWh", numeric=True), Column("Reason"),
    )  # fmt: skip
    rows = [
        (
            plain(one["seller"]), "accepted" if one["accepted"] else "rejected",
            number(one["kw"]), number(one["price"], 2), str(one["reason"]),
        )
        for one in awards
    ]  # fmt: skip
    return TableView("Awards: every bid and its reason", columns, rows)


def _devices(devices: Iterable[Json]) -> TableView:
    columns = (
        Column("Device"), Column("Protocol"), Column("Seller", on_terminal=False),
        Column("Reference", numeric=True), Column("Commanded", numeric=True),
        Column("Acknowledged"), Column("Read back", numeric=True),
        Column("Measured", numeric=True), Column("Lease s", numeric=True, on_terminal=False),
    )  # fmt: skip
    rows = [
        (
            str(one["device"]).removeprefix("dev_"), str(one["protocol"]), plain(one["seller"]),
            number(one["reference_kw"], 2), number(one["setpoint_kw"], 2),
            str(one["acknowledged"]), number(one["read_back_kw"], 2),
            number(one["measured_kw"], 2), number(one["lease_s"], 0),
        )
        for one in devices
    ]  # fmt: skip
    note = (
        "In kW, injection into the grid positive. Commanded, acknowledged and measured are three "
        "facts: what was asked, what the device says it was told, what its meter saw on average."
    )
    return TableView("Setpoints: three facts per device", columns, rows, note)


def _contracts(report: Json) -> TableView:
    period = hours(report)
    columns = (
        Column("Seller"), Column("Windows", numeric=True),
        Column("Instructed kWh", numeric=True), Column("Delivered kWh", numeric=True),
        Column("Share", numeric=True), Column("Coverage", numeric=True),
    )  # fmt: skip
    rows = []
    for seller, windows in contracts(report):
        asked = sum(w["instructed_kw"] for w in windows) * period
        got = sum(w["delivered_kw"] or 0.0 for w in windows) * period
        least = min(w["coverage"] for w in windows)
        share = f"{got / asked:.0%}" if asked else NONE
        rows.append(
            (plain(seller), str(len(windows)), number(asked, 2), number(got, 2),
             share.replace("-", MINUS), f"{least:.0%}")
        )  # fmt: skip
    return TableView("Delivery by contract", columns, rows)


def _windows(report: Json) -> TableView:
    columns = (
        Column("Seller"), Column("Period"), Column("Instructed", numeric=True),
        Column("Baseline", numeric=True), Column("Measured", numeric=True),
        Column("Delivered", numeric=True), Column("Coverage", numeric=True), Column("Note"),
    )  # fmt: skip
    length = timedelta(hours=hours(report))
    rows = []
    for seller, windows in contracts(report):
        for one in windows:
            start = local(report, one["start"])
            rows.append(
                (
                    plain(seller), f"{start:%H:%M} to {start + length:%H:%M}",
                    number(one["instructed_kw"], 2), number(one["baseline_kw"], 2),
                    number(one["measured_kw"], 2), number(one["delivered_kw"], 2),
                    f"{one['coverage']:.0%}", _note(one),
                )
            )  # fmt: skip
    note = (
        "Mean kW over the settlement period. Delivered is measured against baseline, in the "
        "direction asked."
    )
    return TableView("Settlement windows", columns, rows, note)


def _note(window: Json) -> str:
    said = (str(window.get("baseline_method") or ""), str(window.get("note") or ""))
    return " · ".join(part for part in said if part)


def _statement(lines: Iterable[Json]) -> TableView:
    columns = (
        Column("Seller"), Column("Line"), Column("Quantity", numeric=True),
        Column("Price", numeric=True), Column("Amount", numeric=True),
        Column("How it came about", on_terminal=False),
    )  # fmt: skip
    rows = [
        (
            plain(one["seller"]), str(one["line"]), f"{one['quantity']} {one['unit']}",
            f"{one['price']} per {one['unit']}", f"{one['amount']} {one['currency']}",
            str(one["explains"]),
        )
        for one in lines
    ]  # fmt: skip
    return TableView("Statement", columns, rows)


def _ledger(entries: Sequence[Json]) -> TableView:
    columns = (Column("Account"), Column("Debit", numeric=True), Column("Credit", numeric=True))
    rows: list[tuple[str, ...]] = [
        (str(one["account"]), _entry(one["debit"]), _entry(one["credit"])) for one in entries
    ]
    if entries:
        totals = [sum((Decimal(str(e[side])) for e in entries), Decimal()) for side in _SIDES]
        rows.append(("Total", *(number(total, 2) for total in totals)))
    return TableView("Ledger: balances of the order's postings", columns, rows)


def _entry(amount: Any) -> str:
    return "" if not Decimal(str(amount)) else number(amount, 2)


def _flags(report: Json) -> TableView:
    columns = (Column("Device"), Column("Kind"), Column("At"), Column("After", numeric=True))
    rows = [
        (
            str(one["device"]), str(one["kind"]), f"{local(report, one['at']):%H:%M:%S}",
            f"{one.get('after_intervals', NONE)} intervals",
        )
        for one in report.get("flags", ())
    ]  # fmt: skip
    return TableView("Flags", columns, rows)


def hours(report: Json) -> float:
    """Length of a settlement period in hours."""
    return float(report.get("market", {}).get("grid_minutes", 60)) / 60.0
