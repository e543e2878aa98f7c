"""`flexway programmes`: what exists, what it asks, what it would pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from config.programme_files import load_programmes, read_programmes, shipped_programmes
from marketplace_core.errors import RequestError
from marketplace_core.programmes.earnings import Assumptions, Earning, Portfolio, compare
from marketplace_core.programmes.programme import Programme
from marketplace_core.programmes.search import Wanted, search
from marketplace_core.units import Direction, Kw, Kwh

_NOTICE = "Facts as read on the dates shown, never an offer: ask the operator."
_FILES = click.argument("files", nargs=-1, type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")


def _narrowing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that narrow a list."""
    for option in (
        click.option("--file", "files", multiple=True, type=click.Path(path_type=Path),
                     help="Your own entries; default: those that come with Flexway."),
        click.option("--text", default="", help="Words in name, operator, region or notes."),
        click.option("--country", default="", help="ISO code, such as GB or US."),
        click.option("--technology", default="", help="Such as battery."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def programmes() -> None:
    """The index of programmes that exist: facts with source, date and confidence."""


@programmes.command("list", epilog="Example: flexway programmes list --country US --text battery")
@_narrowing
@_JSON
def list_(
    files: Sequence[Path], text: str, country: str, technology: str, *, as_json: bool
) -> None:
    """List programmes, by country and id."""
    found = _found(files, text, country, technology)
    if as_json:
        _write(found)
        return
    table = Table("id", "name", "operator", "where", "from kW", "as of", "confidence")
    for each in found:
        where = f"{each.country} {each.region}".strip()
        table.add_row(
            each.id, each.name, each.operator, where, f"{each.minimum_kw:g}", each.as_of,
            each.confidence.value,
        )  # fmt: skip
    _show(table, f"{len(found)} programmes. {_NOTICE}")


@programmes.command(epilog="Example: flexway programmes show pge_elrp")
@click.argument("programme_id")
@click.option("--file", "files", multiple=True, type=click.Path(path_type=Path))
@_JSON
def show(programme_id: str, files: Sequence[Path], *, as_json: bool) -> None:
    """Show everything that is known of one programme, with its sources."""
    every = {each.id: each for each in _every(files)}
    if programme_id not in every:
        raise RequestError(
            f"there is no programme {programme_id}: `flexway programmes list` names them"
        )
    if as_json:
        _write(every[programme_id])
        return
    table = Table("field", "value", show_lines=False)
    for name, value in msgspec.to_builtins(every[programme_id]).items():
        if value not in (None, "", [], ()) and name != "sources":
            table.add_row(name, _words(value))
    for source in every[programme_id].sources:
        said = f"{source.work}, {source.as_of}, {source.confidence.value}"
        table.add_row("source", f"{source.states}: {said}")
    _show(table, _NOTICE)


@programmes.command(
    "compare",
    epilog="Example: flexway programmes compare --kw 500 --country US --technology battery "
    "--stored-kwh 1200 --event-hours 30",
)
@_narrowing
@click.option("--kw", required=True, type=float, help="Flexible power of the portfolio.")
@click.option("--direction", type=click.Choice(["UP", "DOWN"]), default="UP", show_default=True)
@click.option("--devices", type=int, default=1, show_default=True)
@click.option("--stored-kwh", type=float, default=0.0, show_default=True)
@click.option("--event-hours", type=float, help="Hours of events a year; default: the most.")
@click.option("--delivered", type=float, default=0.9, show_default=True, help="Part of the power.")
@click.option("--price-per-mwh", type=Decimal, help="Where an auction finds the price of energy.")
@click.option("--price-per-kw-year", type=Decimal, help="The same for capacity.")
@_JSON
def compare_(  # noqa: PLR0917 - click hands options in by name
    files: Sequence[Path], text: str, country: str, technology: str, kw: float, direction: str,
    devices: int, stored_kwh: float, event_hours: float | None, delivered: float,
    price_per_mwh: Decimal | None, price_per_kw_year: Decimal | None, *, as_json: bool,
) -> None:  # fmt: skip
    """Compare what a portfolio would earn in each programme, per kW and year."""
    portfolio = Portfolio(
        kw=Kw(kw), direction=Direction(direction), devices=devices, stored_kwh=Kwh(stored_kwh),
        country=country, technology=technology,
    )  # fmt: skip
    assumed = Assumptions(
        event_hours=event_hours, delivered_share=delivered, price_per_mwh=price_per_mwh,
        price_per_kw_year=price_per_kw_year,
    )  # fmt: skip
    earnings = compare(_found(files, text, "", ""), portfolio, assumed)
    if as_json:
        _write(earnings)
        return
    table = Table("programme", "per kW-year", "made of", "assumed", "open, or why not")
    for each in earnings:
        table.add_row(each.programme_id, *_cells(each))
    _show(table, f"{delivered:.0%} of the power is delivered. {_NOTICE}")


@programmes.command(epilog="Example: flexway programmes check my_programmes.yaml")
@_FILES
def check(files: Sequence[Path]) -> None:
    """Check files of programmes; every finding with file, line and key. Exit code 1 if any."""
    if not files:
        raise click.UsageError("name at least one file")
    wrong = 0
    for path in files:
        found, findings = read_programmes(path)
        for finding in findings:
            click.echo(finding)
        wrong += len(findings)
        click.echo(f"{path}: {len(found)} good, {len(findings)} wrong")
    if not wrong:
        load_programmes(list(files))
    raise SystemExit(1 if wrong else 0)


def _cells(one: Earning) -> tuple[str, str, str, str]:
    figure = "not known" if one.per_kw_year is None else f"{one.per_kw_year} {one.currency}"
    return (
        figure, "\n".join(part.says for part in one.parts), one.assumed[-1],
        "\n".join((*one.misfits, *one.open_points)),
    )  # fmt: skip


def _words(value: Any) -> str:
    """A value as a person reads it."""
    if not isinstance(value, list):
        return str(value)
    if any(isinstance(item, dict) for item in value):
        return "\n".join(
            ", ".join(f"{k} {v}" for k, v in item.items() if v not in (None, "")) for item in value
        )
    return ", ".join(str(item) for item in value)


def _found(files: Sequence[Path], text: str, country: str, technology: str) -> list[Programme]:
    return search(_every(files), Wanted(text=text, country=country, technology=technology))


def _every(files: Sequence[Path]) -> list[Programme]:
    return load_programmes(list(files)) if files else shipped_programmes()


def _write(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def _show(table: Table, notice: str) -> None:
    console = Console()
    console.print(table)
    console.print(notice)
