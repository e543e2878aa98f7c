"""Lists that grow come in pages: everything once, in order, and `Client.get` follows the links."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from firmware_sim.servers.webhook import Aggregator
from gateway.client import Client
from marketplace_core.settlement.statement import StatementLine
from tests.harness.api import ASSET, awarded_need, by, order, service
from tests.harness.webhook import yes

SPAN = "start=2030-01-01T00:00:00Z&end=2030-02-01T00:00:00Z"
START = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with service(tmp_path) as made:
        yield made


def run(path: Path, statement: str, rows: list[tuple[Any, ...]]) -> None:
    with closing(sqlite3.connect(path, timeout=10)) as database, database:
        database.executemany(statement, rows)


def line(number: int, order_id: str) -> StatementLine:
    return StatementLine(
        id=f"stl_{number}", order_id=order_id, contract_id="ctr_1", seller="org_s",
        version=1 + number // 3, item="utilisation", quantity=Decimal(1), unit="MWh",
        price=Decimal(1), amount=Decimal("1.00"), currency="USD", explains="test",
    )  # fmt: skip


async def pages(http: httpx.AsyncClient, path: str, who: str, member: str = "") -> list[list[Any]]:
    found: list[list[Any]] = []
    following: str | None = path
    while following is not None:
        answer = await http.get(following, headers=by(who))
        assert answer.status_code == 200, answer.text
        found.append(answer.json()[member] if member else answer.json())
        following = answer.links.get("next", {}).get("url")
    return found


async def whole(http: httpx.AsyncClient, path: str, who: str, **query: str) -> Any:
    """What our own client reads: every page of it."""
    client = Client(str(http.base_url), who)
    try:
        return await asyncio.to_thread(client.get, path, limit="3", **query)
    finally:
        client.close()


async def test_readings_come_in_pages_by_start(http: httpx.AsyncClient) -> None:
    await http.put("/v1/assets", json=[ASSET], headers=by("org_s"))
    starts = [START - timedelta(minutes=30), *(START + timedelta(hours=n) for n in range(6))]
    rows = [{"series": "m-1", "start": at.isoformat(), "seconds": 3600, "power_kw": n}
            for n, at in enumerate(starts)]  # fmt: skip
    await http.post("/v1/readings", json=rows, headers=by("org_s"))
    found = await pages(http, f"/v1/readings/m-1?{SPAN}&limit=3", "org_s", "rows")
    assert [[row[2] for row in page] for page in found] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [row[0] for page in found for row in page] == [at.timestamp() for at in starts]
    query = dict(part.split("=") for part in SPAN.split("&"))
    read = await whole(http, "/v1/readings/m-1", "org_s", **query)
    assert read["rows"] == [row for page in found for row in page]
    for cursor in ("WyJhIl0", "WzEsMl0"):
        path = f"/v1/readings/m-1?{SPAN}&cursor={cursor}"
        assert (await http.get(path, headers=by("org_s"))).status_code == 422


@pytest.mark.parametrize("cursor", ["Wy05MDA3MTk5MjU0NzQwOTkzXQ", "WzkwMDcxOTkyNTQ3NDA5OTMwXQ"])
async def test_a_cursor_out_of_all_time_is_no_fault(http: httpx.AsyncClient, cursor: str) -> None:
    await http.put("/v1/assets", json=[ASSET], headers=by("org_s"))
    path = f"/v1/readings/m-1?{SPAN}&cursor={cursor}"
    assert (await http.get(path, headers=by("org_s"))).json()["rows"] == []


async def test_the_quarantine_comes_in_pages_newest_first(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    statement = "INSERT INTO quarantine (at_us, source, reason, evidence) VALUES (?, ?, 'bad', ?)"
    run(tmp_path / "readings.db", statement, [(n, f"s-{n}", b"x") for n in range(5)])
    found = await pages(http, "/v1/quarantine?limit=2", "org_o", "messages")
    named = [[message["source"] for message in page] for page in found]
    assert named == [["s-4", "s-3"], ["s-2", "s-1"], ["s-0"]]
    read = await whole(http, "/v1/quarantine", "org_o")
    assert [message["source"] for message in read["messages"]] == [
        f"s-{n}" for n in range(4, -1, -1)
    ]
    wrong = await http.get("/v1/quarantine?cursor=WyJhIl0", headers=by("org_o"))
    assert wrong.status_code == 422


async def test_webhooks_and_their_deliveries_come_in_pages(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    made = []
    async with Aggregator(yes) as server:
        for _ in range(3):
            body = {"url": server.url, "events": ["order.settled"]}
            answer = await http.post("/v1/webhooks", json=body, headers=by("org_s"))
            made.append(answer.json()["id"])
    found = await pages(http, "/v1/webhooks?limit=2", "org_s")
    assert [[hook["id"] for hook in page] for page in found] == [made[:2], made[2:]]
    statement = (
        "INSERT INTO webhook_deliveries (id, webhook_id, organisation, message_id, kind, body,"
        " status, attempts, detail, first_us, last_us)"
        " VALUES (?, ?, 'org_s', ?, 'order.settled', x'', 'delivered', 1, '', ?, ?)"
    )
    # The order is that of first attempts: one that is tried again meanwhile moves nowhere.
    rows = [(f"dlv_{n}", made[0], f"msg_{n}", n, 100 - n) for n in range(5)]
    run(tmp_path / "market.db", statement, rows)
    path = f"/v1/webhooks/{made[0]}/deliveries?limit=2"
    found = await pages(http, path, "org_s")
    named = [[delivery["id"] for delivery in page] for page in found]
    assert named == [["dlv_4", "dlv_3"], ["dlv_2", "dlv_1"], ["dlv_0"]]
    assert (await http.get(path, headers=by("org_t"))).status_code == 404
    other = f"/v1/webhooks/{made[1]}/deliveries"
    assert await pages(http, other, "org_s") == [[]]


async def test_the_statement_of_an_order_comes_in_pages(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    asked = order(await awarded_need(http))
    order_id = (await http.post("/v1/orders", json=asked, headers=by("org_b"))).json()["id"]
    lines = [line(n, order_id) for n in range(5)]
    rows = [(each.id, order_id, each.version, msgspec.json.encode(each).decode()) for each in lines]
    statement = "INSERT INTO statement_lines VALUES (?, ?, 'org_b', 'org_s', ?, ?)"
    run(tmp_path / "market.db", statement, rows)
    path = f"/v1/orders/{order_id}/statement"
    found = await pages(http, f"{path}?limit=2", "org_b")
    named = [[each["id"] for each in page] for page in found]
    assert named == [["stl_0", "stl_1"], ["stl_2", "stl_3"], ["stl_4"]]
    text = (await http.get(f"{path}?format=csv&limit=2", headers=by("org_b"))).text
    assert len(text.splitlines()) == 1 + 5
