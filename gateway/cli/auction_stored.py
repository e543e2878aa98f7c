"""Auctions of a store, cleared again from the bids that are recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import msgspec
from sqlalchemy import Connection, make_url, select
from sqlalchemy.exc import SQLAlchemyError

from config.loading import load_settings
from gateway.bootstrap.backends import database_password
from gateway.store.engine import open_engine, snapshot
from gateway.store.market import bids_for, need_by_id
from gateway.store.tables import needs
from marketplace_core.errors import FlexwayError
from marketplace_core.procurement.bid import Clearing
from marketplace_core.procurement.clearing import clear


def stored_differences(
    config_file: Path | None, database: str | None, only: tuple[str, ...]
) -> tuple[int, list[str]]:
    """How many auctions were cleared again, and what differs from what was recorded."""
    password = None
    if config_file is not None:
        store = load_settings(config_file).store
        database = database or store.database
        password = database_password(store)
    if database is None:
        raise click.UsageError("give --config or --database")
    file = make_url(database).database
    if database.startswith("sqlite") and not (file and Path(file).is_file()):
        raise click.ClickException(f"{database} does not exist: check --database or --config")
    engine = open_engine(database, password=password)
    try:
        with snapshot(engine) as connection:
            cleared = dict(_cleared(connection, only))
            wrong = [
                line
                for need_id, text in cleared.items()
                for line in _again(connection, need_id, text)
            ]
    except (SQLAlchemyError, FlexwayError) as error:
        raise click.ClickException(f"the store cannot be read: {error}") from error
    finally:
        engine.dispose()
    unknown = sorted(set(only) - cleared.keys())
    return len(cleared), wrong + [
        f"{need_id}: no cleared auction of this need" for need_id in unknown
    ]


def _cleared(connection: Connection, only: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    query = select(needs.c.id, needs.c.clearing).where(needs.c.clearing.is_not(None))
    if only:
        query = query.where(needs.c.id.in_(only))
    for row in connection.execute(query.order_by(needs.c.id)):
        yield row.id, row.clearing


def _again(connection: Connection, need_id: str, text: str) -> list[str]:
    """What differs in one auction."""
    filed = msgspec.json.decode(text, type=Clearing)
    need, _ = need_by_id(connection, need_id)
    again = clear(need, bids_for(connection, need_id))
    if filed == again:
        return []
    theirs = {award.bid_id: award for award in again.awards}
    wrong = [
        f"{need_id}: {award.bid_id} is recorded as {award.reason!r} with {award.kw:g} kW at"
        f" {award.price}, and its bids give {_words(theirs, award.bid_id)}"
        for award in filed.awards
        if theirs.pop(award.bid_id, None) != award
    ]
    wrong += [f"{need_id}: {bid_id} is bid on it and has no outcome" for bid_id in theirs]
    return wrong or [f"{need_id}: what is unmet or the method differs"]


def _words(theirs: Mapping[str, object], bid_id: str) -> str:
    return "another outcome" if bid_id in theirs else "another outcome or none"
