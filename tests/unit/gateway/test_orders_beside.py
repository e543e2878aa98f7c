"""Orders beside others on the same contracts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from tests.harness.api import awarded_need, by, order, service


async def ended(http: httpx.AsyncClient, need_id: str) -> str:
    """Submit an order for the same hour, and wait for what it ends in."""
    sent = await http.post("/v1/orders", json=order(need_id), headers=by("org_b"))
    assert sent.status_code == 202
    async with asyncio.timeout(10):
        while True:
            row = (await http.get(f"/v1/orders/{sent.json()['id']}", headers=by("org_b"))).json()
            if row["state"] in {"infeasible", "rejected"}:
                state: str = row["state"]
                return state
            await asyncio.sleep(0.01)


async def test_an_order_that_no_device_can_deliver_uses_nothing_up(tmp_path: Path) -> None:
    async with service(tmp_path) as http:
        need_id = await awarded_need(http)
        assert await ended(http, need_id) == "infeasible"  # no device is bound here
        assert await ended(http, need_id) == "infeasible"  # and not "already called in full"
