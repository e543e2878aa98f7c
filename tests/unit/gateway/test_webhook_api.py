"""Webhooks through the API of the real service: registration, secrets, isolation."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.settings import (
    ApiSettings,
    ClientSettings,
    MarketSettings,
    Settings,
    StoreSettings,
    WebhookSettings,
)
from firmware_sim.servers.webhook import Aggregator
from gateway.bootstrap import build
from gateway.store.sealing import Sealer, load_or_create_sealing_key
from marketplace_core.errors import ConfigError, StoreError
from tests.harness.api import awarded_need, by, order, sha256
from tests.harness.clocks import eventually
from tests.harness.lab import free_port
from tests.harness.webhook import Request, foreign, http, says, yes

ROLES = {"org_s": "seller", "org_t": "seller", "org_b": "buyer", "org_o": "operator"}
EVENTS = ["order.planned", "order.infeasible", "order.rejected", "order.settled"]


def settings(folder: Path, **webhook: Any) -> Settings:
    clients = tuple(
        ClientSettings(organisation=name, role=role, token_sha256=sha256(name))  # type: ignore[arg-type]
        for name, role in ROLES.items()
    )
    store = StoreSettings(
        database=f"sqlite:///{folder / 'market.db'}", readings=folder / "readings.db",
        roots=folder / "roots.jsonl", signing_key=folder / "keys" / "key.pem",
    )  # fmt: skip
    quick = {"connect_timeout_s": 1.5, "answer_timeout_s": 4.0, "backoff_s": 0.01, **webhook}
    return Settings(
        lab=True, store=store, api=ApiSettings(port=0, clients=clients),
        market=MarketSettings(timezone="UTC", settlement_minutes=5, currency="USD"),
        webhook=WebhookSettings(**quick),
    )  # fmt: skip


@asynccontextmanager
async def service(folder: Path, **webhook: Any) -> AsyncIterator[httpx.AsyncClient]:
    application = build(settings(folder, **webhook))
    stop, started = asyncio.Event(), asyncio.Event()
    url = "http://{}:{}".format(*application.listener.getsockname())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(application.run(stop, started.set))
        await started.wait()
        async with httpx.AsyncClient(base_url=url, timeout=30.0) as client:
            yield client
        stop.set()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with service(tmp_path) as client:
        yield client


@pytest.fixture
async def aggregator() -> AsyncIterator[Aggregator]:
    async with Aggregator(yes) as server:
        yield server


async def register(
    api: httpx.AsyncClient, aggregator: Aggregator, by_whom: str = "org_s", **more: Any
) -> dict[str, Any]:
    body = {"url": aggregator.url, "events": ["dispatch"], **more}
    answer = await api.post("/v1/webhooks", json=body, headers=by(by_whom))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    aggregator.secrets.insert(0, made["secret"])
    return made


async def test_a_webhook_is_registered_tested_listed_and_deleted(
    api: httpx.AsyncClient, aggregator: Aggregator
) -> None:
    made = await register(api, aggregator, status_url=aggregator.status_url)
    path = f"/v1/webhooks/{made['id']}"
    tested = (await api.post(f"{path}/test", headers=by("org_s"))).json()
    assert (tested["delivered"], tested["http_status"], tested["detail"]) == (True, 200, "")
    assert tested["latency_ms"] >= 0
    (listed,) = (await api.get("/v1/webhooks", headers=by("org_s"))).json()
    assert (listed["id"], listed["state"]) == (made["id"], "healthy")
    assert "secret" not in listed
    assert (await api.delete(path, headers=by("org_s"))).status_code == 204
    assert (await api.get("/v1/webhooks", headers=by("org_s"))).json() == []
    assert (await api.delete(path, headers=by("org_s"))).status_code == 404
    assert aggregator.rejected == []


@pytest.mark.parametrize(
    "answer",
    [
        http(200, b"something else"),
        http(404),
        http(301, b"", "Location: /"),
        http(200, b"x" * 99_999),
    ],
)
async def test_who_does_not_hold_the_server_cannot_register_it(
    api: httpx.AsyncClient, answer: bytes
) -> None:
    async with foreign(says(answer)) as server:
        body = {"url": server.url, "events": ["dispatch"]}
        refused = await api.post("/v1/webhooks", json=body, headers=by("org_s"))
    assert refused.status_code == 422
    assert refused.json()["field"] == "url"
    assert "challenge" in refused.json()["detail"]
    assert "?echo=" in server.requests[0].head
    assert (await api.get("/v1/webhooks", headers=by("org_s"))).json() == []


async def test_an_organisation_registers_one_at_a_time(api: httpx.AsyncClient) -> None:
    free = asyncio.Event()

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await free.wait()
        writer.write(http(200, request.head.split("echo=")[1].split(" ")[0].encode()))

    async with foreign(behave) as server, asyncio.TaskGroup() as tasks:
        body = {"url": server.url, "events": ["dispatch"]}
        first = tasks.create_task(api.post("/v1/webhooks", json=body, headers=by("org_s")))
        await eventually(lambda: bool(server.requests), what="the challenge")
        second = await api.post("/v1/webhooks", json=body, headers=by("org_s"))
        assert "one registration" in second.json()["rule"]
        free.set()
        assert (await first).status_code == 201
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"url": "https://10.0.0.1/hook"}, "url"), ({"url": "http://8.8.8.8/"}, "url"),
        ({"url": "ftp://hook.example/"}, "url"), ({"url": "https://a@hook.example/"}, "url"),
        ({"url": f"http://127.0.0.1:{free_port()}/"}, "url"),
        ({"status_url": "http://127.0.0.1:1/orders"}, "status_url"),
    ],
)  # fmt: skip
async def test_a_url_that_leads_elsewhere_is_refused_with_its_rule(
    api: httpx.AsyncClient, aggregator: Aggregator, changes: dict[str, str], field: str
) -> None:
    body = {"url": aggregator.url, "events": ["dispatch"], **changes}
    refused = await api.post("/v1/webhooks", json=body, headers=by("org_s"))
    assert refused.status_code == 422
    problem = refused.json()
    assert problem["field"] == field
    assert problem["rule"]
    assert problem["remedy"]


async def test_one_webhook_takes_the_dispatches_and_there_are_not_too_many(
    api: httpx.AsyncClient, aggregator: Aggregator
) -> None:
    await register(api, aggregator)
    body = {"url": aggregator.url, "events": ["dispatch"]}
    second = await api.post("/v1/webhooks", json=body, headers=by("org_s"))
    assert (second.status_code, second.json()["field"]) == (422, "events")
    for _ in range(9):
        await register(api, aggregator, events=EVENTS)
    eleventh = await api.post("/v1/webhooks", json={**body, "events": EVENTS}, headers=by("org_s"))
    assert (eleventh.status_code, eleventh.json()["rule"][:10]) == (422, "at most 10")
    await register(api, aggregator, "org_t")


async def test_roles_and_bodies_are_checked(api: httpx.AsyncClient, aggregator: Aggregator) -> None:
    dispatch = {"url": aggregator.url, "events": ["dispatch"]}
    assert (await api.post("/v1/webhooks", json=dispatch, headers=by("org_b"))).status_code == 403
    assert (await api.get("/v1/webhooks", headers=by("org_o"))).status_code == 403
    for wrong in ({"events": []}, {"events": ["all"]}, {"surprise": 1}, {"url": ""}):
        answer = await api.post("/v1/webhooks", json={**dispatch, **wrong}, headers=by("org_s"))
        assert answer.status_code == 422


async def test_nobody_sees_or_moves_the_webhook_of_another(
    api: httpx.AsyncClient, aggregator: Aggregator
) -> None:
    made = await register(api, aggregator)
    path = f"/v1/webhooks/{made['id']}"
    for method, where in (
        ("DELETE", path), ("POST", f"{path}/rotate"), ("POST", f"{path}/test"),
        ("GET", f"{path}/deliveries"),
    ):  # fmt: skip
        for other in ("org_t", "org_b"):
            answer = await api.request(method, where, headers=by(other))
            assert answer.status_code == 404, (method, where, other)
        own = await api.request(method, "/v1/webhooks/whk_unknown" + where[len(path):],
                                headers=by("org_s"))  # fmt: skip
        unknown = {**own.json(), "detail": ""}
        foreigner = await api.request(method, where, headers=by("org_t"))
        assert {**foreigner.json(), "detail": ""} == unknown
    assert (await api.get("/v1/webhooks", headers=by("org_t"))).json() == []
    tested = (await api.post(f"{path}/test", headers=by("org_s"))).json()
    assert tested["delivered"], "the secret was not rotated by another"


async def test_while_a_secret_is_rotated_both_are_signed_with_and_then_one(tmp_path: Path) -> None:
    async with (
        Aggregator(yes) as aggregator,
        service(tmp_path, rotation_overlap_s=1.0) as api,
    ):
        made = await register(api, aggregator)
        path = f"/v1/webhooks/{made['id']}"
        rotated = (await api.post(f"{path}/rotate", headers=by("org_s"))).json()
        assert rotated["secret"] != made["secret"]
        for known in ([made["secret"]], [rotated["secret"]]):
            aggregator.secrets[:] = known
            tested = (await api.post(f"{path}/test", headers=by("org_s"))).json()
            assert tested["delivered"], known
        until = datetime.fromisoformat(rotated["previous_secret_until"])
        await asyncio.sleep(max(0.0, (until - datetime.now(UTC)) / timedelta(seconds=1)) + 0.01)
        aggregator.secrets[:] = [made["secret"]]
        tested = (await api.post(f"{path}/test", headers=by("org_s"))).json()
        assert (tested["delivered"], tested["http_status"]) == (False, 401)
        assert "not set up" in tested["detail"]
        (listed,) = (await api.get("/v1/webhooks", headers=by("org_s"))).json()
        assert listed["state"] == "failing"
        aggregator.secrets[:] = [rotated["secret"]]
        assert (await api.post(f"{path}/test", headers=by("org_s"))).json()["delivered"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_secret_stands_nowhere_in_clear(
    tmp_path: Path,
    aggregator: Aggregator,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown: list[str] = []
    async with service(tmp_path) as api:
        made = await register(api, aggregator)
        key = by("org_s", **{"Idempotency-Key": "k"})
        path = f"/v1/webhooks/{made['id']}"
        rotated = (await api.post(f"{path}/rotate", headers=key)).json()
        secrets = [made["secret"], rotated["secret"]]
        aggregator.secrets[:] = ["wrong"]
        shown += [
            (await api.get(where, headers=by("org_s"))).text
            for where in ("/v1/webhooks", f"{path}/deliveries")
        ]
        shown.append((await api.post(f"{path}/test", headers=by("org_s"))).text)
        shown.append((await api.get("/metrics")).text)
    kept = files(tmp_path)
    assert len(kept) > 4
    assert not [
        name for name, content in kept.items() if any(s.encode() in content for s in secrets)
    ]
    shown += [caplog.text, capsys.readouterr().out]
    assert not any(secret in text for secret in secrets for text in shown)


async def test_registration_and_secret_outlive_a_restart(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    async with service(tmp_path) as api:
        made = await register(api, aggregator)
    async with service(tmp_path) as api:
        tested = await api.post(f"/v1/webhooks/{made['id']}/test", headers=by("org_s"))
        assert tested.json()["delivered"]
    assert aggregator.rejected == []


async def test_a_row_that_was_copied_to_another_does_not_open(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    async with service(tmp_path) as api:
        mine = await register(api, aggregator)
        theirs = await register(api, aggregator, "org_t")
    with sqlite3.connect(tmp_path / "market.db") as database:
        database.execute(
            "UPDATE webhooks SET secret = (SELECT secret FROM webhooks WHERE id = ?) WHERE id = ?",
            (mine["id"], theirs["id"]),
        )
    database.close()
    async with service(tmp_path) as api:
        tested = await api.post(f"/v1/webhooks/{theirs['id']}/test", headers=by("org_t"))
        assert tested.status_code == 503
        still = await api.post(f"/v1/webhooks/{mine['id']}/test", headers=by("org_s"))
        assert still.json()["delivered"]


def test_a_key_that_others_may_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "webhook.key"
    key = load_or_create_sealing_key(path)
    assert load_or_create_sealing_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create_sealing_key(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes"):
        load_or_create_sealing_key(path)
    sealed = Sealer(key).seal("secret", bound_to="whk_1")
    assert Sealer(key).open(sealed, bound_to="whk_1") == "secret"
    for other, bound_to in ((Sealer(key), "whk_2"), (Sealer(bytes(32)), "whk_1")):
        with pytest.raises(StoreError, match="does not open"):
            other.open(sealed, bound_to=bound_to)


async def test_what_happens_to_an_order_is_told_to_those_it_concerns(
    api: httpx.AsyncClient, tmp_path: Path
) -> None:
    async with Aggregator(yes) as buyer, Aggregator(yes) as seller, Aggregator(yes) as stranger:
        await register(api, buyer, "org_b", events=EVENTS)
        await register(api, seller, "org_s", events=EVENTS)
        await register(api, stranger, "org_t", events=EVENTS)
        need_id = await awarded_need(api)
        made = await api.post("/v1/orders", json=order(need_id), headers=by("org_b"))
        assert made.status_code == 202
        await eventually(lambda: bool(buyer.notified), seconds=20.0, what="a notification")
        (told,) = buyer.notified
        # its only device is bound nowhere here, so the plan has nobody to ask
        assert told.event == "order.infeasible"
        assert told.data["order_id"] == made.json()["id"]
        assert told.data["role"] == "buyer"
        assert seller.notified == stranger.notified == []
        (hook,) = (await api.get("/v1/webhooks", headers=by("org_b"))).json()
        path = f"/v1/webhooks/{hook['id']}/deliveries"
        (row,) = (await api.get(path, headers=by("org_b"))).json()
        assert (row["kind"], row["status"], row["attempts"]) == ("order.infeasible", "accepted", 1)
