"""The report on the terminal: verdict, short tables and checks, at 100 columns."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from gateway.cli.report_statement import Statement
from gateway.cli.report_tables import Column, TableView
from gateway.cli.report_view import OrderView, PageView, view
from gateway.cli.report_words import Json

_MOST = 30
"""Rows of a table; what is beyond is counted, and stands in the page."""


def print_report(report: Json, console: Console) -> None:
    """Print verdict, tables and checks; devices only as sums and exceptions."""
    page = view(report)
    style = "bold green" if page.holds else "bold red"
    console.print()
    console.print(Text(f"{page.title}: {page.verdict}", style=style))
    console.print(Text(page.subtitle, style="dim"))
    for table in _tables(page):
        if table.rows:
            console.print()
            console.print(_table(table))
            if len(table.rows) > _MOST:
                console.print(Text(f"{len(table.rows) - _MOST} more in report.html", style="dim"))
    console.print()
    for check in page.checks:
        mark = Text("holds  ", style="green") if check.holds else Text("FAILS  ", style="bold red")
        console.print(mark + Text(check.name, style="default"))


def _tables(page: PageView) -> Iterable[TableView]:
    for order in page.orders:
        yield from _order_tables(order)
    for name in ("setpoints", "exceptions", "flags", "truth"):
        yield page.tables[name]
    yield _totals(page.statement)


def _order_tables(order: OrderView) -> Iterable[TableView]:
    for table in (order.awards, order.deliveries):
        if table is not None:
            title = f"{order.title} \N{EN DASH} {table.title.lower()}"
            yield TableView(title, table.columns, table.rows, total=table.total)


def _totals(source: Statement) -> TableView:
    columns = (
        Column("Seller"), Column("Lines", numeric=True), Column("Energy", numeric=True),
        Column("Amount", numeric=True),
    )  # fmt: skip
    rows = [(bill.seller, str(len(bill.lines)), bill.energy, bill.total) for bill in source.bills]
    total = ("Total", str(source.count), "", source.total)
    return TableView("Statement", columns, rows, total=total)


def _table(source: TableView) -> Table:
    shown = [index for index, column in enumerate(source.columns) if column.on_terminal]
    table = Table(
        title=Text(source.title), title_justify="left", title_style="bold", pad_edge=False,
        box=None, header_style="dim",
    )  # fmt: skip
    for index in shown:
        column = source.columns[index]
        side: JustifyMethod = "right" if column.numeric else "left"
        table.add_column(Text(column.name), justify=side, overflow="fold")
    for row in source.rows[:_MOST]:
        table.add_row(*(Text(row[index]) for index in shown))
    if source.total:
        table.add_row(*(Text(source.total[index], style="bold") for index in shown))
    return table
