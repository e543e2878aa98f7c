"""`flexway journal`: checking the audit log."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from config.loading import load_settings
from gateway.bootstrap.backends import database_password
from gateway.store.engine import open_engine, snapshot
from gateway.store.roots import load_public_key, read_roots
from gateway.store.verify import Verdict, verify_journal
from marketplace_core.errors import ConfigError, FlexwayError


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
    try:
        verdict = check(database, roots, public_key, password=password)
    except (SQLAlchemyError, OSError, ValueError, FlexwayError) as error:
        raise click.ClickException(_cannot(error)) from error
    show(verdict, roots)
    sys.exit(0 if verdict.verified and not _emptied(verdict, roots) else 1)


def _cannot(error: Exception) -> str:
    """Why a journal cannot be read, and what to look at."""
    what = getattr(error, "orig", None) or error
    return (
        f"the journal cannot be verified: {str(what).splitlines()[0]}\n"
        "Check --database, --roots and --public-key, or the [store] section of --config."
    )


def _emptied(verdict: Verdict, roots: Path | None) -> bool:
    """Whether a file of roots was given that holds none, beside a journal that holds records."""
    return roots is not None and verdict.roots == 0 and verdict.events > 0


def check(
    database: str, roots: Path | None, public_key: Path | None, *, password: str | None = None
) -> Verdict:
    """Verify a journal; StoreError when the file of roots itself is broken.

    ConfigError when there is no such database: opening SQLite would make an empty one.
    """
    file = make_url(database).database
    if database.startswith("sqlite") and not (file and Path(file).is_file()):
        raise ConfigError(f"{database} does not exist")
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


def show(verdict: Verdict, roots: Path | None = None) -> None:
    """Print what was found."""
    console = Console()
    console.print(
        f"{verdict.events} records, {verdict.roots} signed roots, head {verdict.head_hash[:16]}"
    )
    if _emptied(verdict, roots):
        console.print(f"[red]{roots} holds no root of these records: it was emptied[/]")
        return
    if verdict.roots == 0:
        console.print("[yellow]no roots were given: a rewritten history would not be seen[/]")
    if verdict.verified:
        console.print("[green]verified[/]")
        return
    table = Table("shard", "record", "fault", "what is wrong")
    for fault in verdict.faults:
        table.add_row(str(fault.shard), str(fault.sequence), fault.kind, fault.detail)
    console.print(table)
