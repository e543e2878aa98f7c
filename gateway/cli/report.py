"""The report of an order: `report.json`, `report.html` and tables on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.cli.report_plots import plots
from gateway.cli.report_tables import Rows, TableView
from gateway.cli.report_view import view

_TEMPLATE = "report.html.j2"
_CONSOLE_TABLES = ("awards", "devices", "contracts", "statement")


def write_report(report: Mapping[str, Any], out_dir: Path) -> None:
    """Write `report.json` and the self-contained page `report.html` into a folder."""
    out_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, ensure_ascii=False, default=_plain)
    (out_dir / "report.json").write_text(text + "\n", encoding="utf-8")
    (out_dir / "report.html").write_text(render_html(report), encoding="utf-8")


def render_html(report: Mapping[str, Any]) -> str:
    """The page: no script, no request to anywhere, every value escaped."""
    environment = Environment(
        loader=PackageLoader("gateway.cli"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = view(report)
    return environment.get_template(_TEMPLATE).render(page=page, plots=plots(report))


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print verdict, tables and checks; readable at 100 columns."""
    page = view(report)
    console.print()
    style = "bold green" if page.holds else "bold red"
    console.print(Text(f"{page.title}: {page.verdict}", style=style))
    console.print(Text(page.subtitle, style="dim"))
    for name in _CONSOLE_TABLES:
        table = page.tables[name]
        if table.rows:
            console.print(_table(table))
    for check in page.checks:
        mark = Text("holds  ", style="green") if check.holds else Text("FAILS  ", style="bold red")
        console.print(mark + Text(check.name, style="default"))


def _table(source: TableView) -> Table:
    table = Table(
        title=Text(source.title), title_justify="left", title_style="bold", pad_edge=False
    )
    for column in source.columns:
        if column.on_terminal:
            table.add_column(
                Text(column.name), justify="right" if column.numeric else "left", overflow="fold"
            )
    for row in _narrow(source):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _narrow(source: TableView) -> Rows:
    shown = [index for index, column in enumerate(source.columns) if column.on_terminal]
    return [_pick(row, shown) for row in source.rows]


def _pick(row: Sequence[str], indices: Sequence[int]) -> Sequence[str]:
    return [row[index] for index in indices]


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    msg = f"a report holds plain values, not {type(value).__name__}"
    raise TypeError(msg)
