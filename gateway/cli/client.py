"""`flexway client`: who may use the API."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import click
from sqlalchemy import Connection

from config.loading import load_settings
from gateway.bootstrap.backends import open_database
from gateway.credentials import new_client
from gateway.store.clients import ROLES, add_client, list_clients, revoke_client
from gateway.store.engine import migrate
from gateway.store.organisations import add_organisation
from marketplace_core.errors import RequestError
from marketplace_core.ids import IdSource

T = TypeVar("T")
_config = click.option(
    "--config", "config_file", required=True,
    type=click.Path(dir_okay=False, path_type=Path), help="Settings, TOML.",
)  # fmt: skip

_ORGANISATION: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""As the API takes them."""


@click.group()
def client() -> None:
    """Clients of the API: add, list, revoke. The service may be running."""


@client.command(
    epilog="Example: flexway client add --config f.toml --organisation org_x --role seller"
)
@_config
@click.option("--organisation", required=True, help="Whose client it is; entered when it is new.")
@click.option("--role", required=True, type=click.Choice(ROLES))
@click.option("--api-key", is_flag=True, help="One key sent with every request, without OAuth2.")
@click.option("--label", default="", help="What it is for.")
def add(config_file: Path, organisation: str, role: str, label: str, *, api_key: bool) -> None:
    """Make a client and show its id and secret, once: only a hash is kept."""
    if not _ORGANISATION.fullmatch(organisation):
        raise click.BadParameter(
            "1 to 64 letters, digits and _ . : -, such as org_x", param_hint="--organisation"
        )
    now = datetime.now(UTC)
    ids = IdSource(lambda: time.time_ns() // 1_000_000, secrets.randbits)
    row, secret = new_client(
        organisation=organisation, role=role, kind="key" if api_key else "secret",
        label=label[:200], new_id=ids.new, at=now,
    )  # fmt: skip

    def work(connection: Connection) -> None:
        add_organisation(connection, organisation, organisation, now)
        add_client(connection, row)

    _in_database(config_file, work)
    click.echo(f"client_id      {row.id}")
    click.echo(f"{'api_key' if api_key else 'client_secret':<14} {secret}")
    click.echo("Keep the secret: it is not shown again.", err=True)


@client.command(name="list")
@_config
def list_(config_file: Path) -> None:
    """Show every client; no secret is shown, none is kept."""
    rows = [("client", "organisation", "role", "kind", "made", "revoked", "label")]
    rows += [
        (
            row.id, row.organisation, row.role, row.kind, f"{row.created:%Y-%m-%d %H:%M}Z",
            "-" if row.revoked is None else f"{row.revoked:%Y-%m-%d %H:%M}Z", row.label,
        )
        for row in _in_database(config_file, list_clients)
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:  # not a table of the terminal's width: ids are copied from here
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


@client.command()
@_config
@click.argument("client_id")
def revoke(config_file: Path, client_id: str) -> None:
    """Shut a client out at once, its access tokens too."""
    now = datetime.now(UTC)
    if not _in_database(config_file, lambda c: revoke_client(c, client_id, now)):
        raise RequestError(f"there is no client {client_id}, or it was revoked before")
    click.echo(f"{client_id} is revoked")


def _in_database(config_file: Path, work: Callable[[Connection], T]) -> T:
    engine = open_database(load_settings(config_file).store)
    try:
        migrate(engine)
        with engine.begin() as connection:
            return work(connection)
    finally:
        engine.dispose()
