"""The real service in process, over HTTP, with a token for each role."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from config.settings import ApiSettings, ClientSettings, MarketSettings, Settings, StoreSettings
from gateway.app import Application
from gateway.bootstrap import build

ROLES = {"org_b": "buyer", "org_other": "buyer", "org_s": "seller",
         "org_t": "seller", "org_o": "operator",
         "org_r": "readonly"}  # fmt: skip
ASSET = {"id": "ast-1", "feeder": "F-1", "technology": "battery", "devices": ["bat-1"],
         "meter": "m-1", "measurement_point": "site_net", "up_kw": 5.0}  # fmt: skip


def settings(folder: Path, sections: Mapping[str, Any] | None = None, **api: Any) -> Settings:
    """`sections` are others of the configuration, as a file would have them."""
    clients = tuple(
        ClientSettings(organisation=name, role=role, token_sha256=sha256(name))  # type: ignore[arg-type]
        for name, role in ROLES.items()
    )
    store = StoreSettings(
        database=f"sqlite:///{folder / 'market.db'}", readings=folder / "readings.db",
        roots=folder / "roots.jsonl", signing_key=folder / "key.pem",
    )  # fmt: skip
    return Settings(
        lab=True, store=store,
        api=ApiSettings(port=0, clients=clients, max_body_bytes=200_000, **api),
        market=MarketSettings(timezone="UTC", settlement_minutes=5, currency="USD"),
        **(sections or {}),
    )  # fmt: skip


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@asynccontextmanager
async def service(
    folder: Path, sections: Mapping[str, Any] | None = None, **api: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """The service on a free port; `api` are settings of the API."""
    async with running(folder, sections, **api) as (client, _):
        yield client


@asynccontextmanager
async def running(
    folder: Path, sections: Mapping[str, Any] | None = None, **api: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Application]]:
    """The same, with what runs behind the port."""
    application = build(settings(folder, sections, **api))
    stop, started = asyncio.Event(), asyncio.Event()
    url = "http://{}:{}".format(*application.listener.getsockname())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(application.run(stop, started.set))
        await started.wait()
        # It lets go of a connection before the server does: else a request may meet its end.
        limits = httpx.Limits(keepalive_expiry=2.0)
        async with httpx.AsyncClient(base_url=url, limits=limits) as client:
            yield client, application
        stop.set()


def by(organisation: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {organisation}", **more}


def window(minutes: int = 10) -> dict[str, str]:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    start = now + timedelta(hours=2)
    return {"start": start.isoformat(), "end": (start + timedelta(minutes=minutes)).isoformat()}


async def awarded_need(http: httpx.AsyncClient) -> str:
    assert (await http.put("/v1/assets", json=[ASSET], headers=by("org_s"))).status_code == 200
    need = {"feeder": "F-1", "direction": "UP", "kw": 4.0, "window": window(30),
            "price_cap": "300", "currency": "USD", "baseline": "zero"}  # fmt: skip
    need_id: str = (await http.post("/v1/needs", json=need, headers=by("org_b"))).json()["id"]
    bid = {"assets": ["ast-1"], "kw": 4.0, "utilisation_price": "120"}
    placed = await http.post(f"/v1/needs/{need_id}/bids", json=bid, headers=by("org_s"))
    assert placed.status_code == 201
    cleared = await http.post(f"/v1/needs/{need_id}/clear", headers=by("org_b"))
    assert all(award["reason"] for award in cleared.json()["clearing"]["awards"])
    contracts = await http.get(f"/v1/needs/{need_id}/contracts", headers=by("org_b"))
    for contract, side in itertools.product(contracts.json(), ("org_b", "org_s")):
        signed = await http.post(f"/v1/contracts/{contract['id']}/sign", headers=by(side))
        assert side in signed.json()["signed_by"]
    return need_id


def order(need_id: str, **changes: Any) -> dict[str, Any]:
    return {"need_id": need_id, "kw": 4.0, "interval": window(), **changes}
