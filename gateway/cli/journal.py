"""`flexway journal`: checking the audit log."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from config.loading import load_settings
from gateway.bootstrap.backends import database_password
from gateway.store.engine import open_engine, snapshot
from gateway.store.roots import load_public_key, read_roots
from gateway.store.verify import Verdict, verify_journal


@click.group()
def journal() -> None:
    """The append-only, hash-chained record of every decision."""


@journal.command(
    epilog="Example: flexway journal verify --config flexway.toml",
)
@click.option(
    "--config", "config_file", type=click.Path(dir_okay=False, path_type=Path),
    help="Take the paths from these settings.",
)  # fmt: skip
@click.option(
    "--database", help="Database URL, such as sqlite:///data/market.db; PGPASSWORD counts."
)
@click.option("--roots", type=click.Path(path_type=Path), help="File of signed roots.")
@click.option("--public-key", type=click.Path(path_type=Path), help="Key that signed them, PEM.")
def verify(
    config_file: Path | None, database: str | None, roots: Path | None, public_key: Path | None
) -> None:
    """Walk every chain and hold it against the signed roots; exit 1 when anything is wrong."""
    password = None
    if config_file is not None:
        store = load_settings(config_file).store
        database = database or store.database
        password = database_password(store)
        roots = roots or store.roots
        public_key = public_key or store.signing_key.with_suffix(".pub.pem")
    if database is None:
        raise click.UsageError("give --config or --database")
    verdict = check(database, roots, public_key, password=password)
    show(verdict)
    sys.exit(0 if verdict.verified else 1)


def check(
    database: str, roots: Path | None, public_key: Path | None, *, password: str | None = None
) -> Verdict:
    """Verify a journal; StoreError when the file of roots itself is broken."""
    signed = (
        list(read_roots(roots, load_public_key(public_key)))
        if roots is not None and public_key is not None
        else []
    )
    engine = open_engine(database, password=password)
    try:
        with snapshot(engine) as connection:
            return verify_journal(connection, signed)
    finally:
        engine.dispose()


def show(verdict: Verdict) -> None:
    """Print what was found."""
    console = Console()
    console.print(
        f"{verdict.events} records, {verdict.roots} signed roots, head {verdict.head_hash[:16]}"
    )
    if verdict.roots == 0:
        console.print("[yellow]no roots were given: a rewritten history would not be seen[/]")
    if verdict.verified:
        console.print("[green]verified[/]")
        return
    table = Table("shard", "record", "fault", "what is wrong")
    for fault in verdict.faults:
        table.add_row(str(fault.shard), str(fault.sequence), fault.kind, fault.detail)
    console.print(table)
