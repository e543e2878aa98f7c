"""`flexway auction verify` on auctions that a service cleared and stored."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import flexway
from tests.harness.api import awarded_need, service


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """What a service that cleared one auction leaves behind."""
    async with service(tmp_path) as http:
        await awarded_need(http)
    return tmp_path


def verify(folder: Path, *more: str) -> Result:
    database = f"sqlite:///{folder / 'market.db'}"
    return CliRunner().invoke(flexway, ["auction", "verify", "--database", database, *more])


async def test_a_stored_auction_clears_again_to_what_is_recorded(folder: Path) -> None:
    done = verify(folder)
    assert done.exit_code == 0, done.output
    assert "1 auctions cleared again, 0 contradictions" in done.output


async def test_a_bid_that_was_changed_after_closing_is_seen(folder: Path) -> None:
    with sqlite3.connect(folder / "market.db") as connection:
        name, text = connection.execute("select id, document from bids").fetchone()
        changed = {**json.loads(text), "utilisation_price": "0.01"}
        connection.execute("update bids set document = ? where id = ?", (json.dumps(changed), name))
    connection.close()
    done = verify(folder)
    assert done.exit_code == 1
    assert name in done.output


async def test_a_need_without_an_auction_is_said(folder: Path) -> None:
    done = verify(folder, "--need", "need_nowhere")
    assert done.exit_code == 1
    assert "need_nowhere: no cleared auction of this need" in done.output


async def test_a_store_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = verify(tmp_path)
    assert done.exit_code == 1
    assert "does not exist" in done.output
