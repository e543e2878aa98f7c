"""One key stands for one request, at every operation that makes something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from firmware_sim.servers.webhook import Aggregator
from tests.harness.api import ASSET, by, order, service, window
from tests.harness.webhook import yes

MAKES_NOTHING = {
    "POST /oauth/token": "a token is good beside others, and the caller is not known yet",
    "POST /v1/orders/dry-run": "writes nothing",
    "POST /v1/webhooks/{webhook_id}/test": "a ping",
}
PLACE = {"id": "US", "name": "US", "level": "country"}
NEED = {"feeder": "F-1", "direction": "UP", "kw": 4.0, "price_cap": "300", "currency": "USD"}
READING = {"series": "m-1", "start": "2030-01-01T00:00:00Z", "seconds": 60, "power_kw": 1}
ROW = "m-1,2030-01-01T00:00:00Z,60,1"
CSV = f"series,start_utc,seconds,power_kw\n{ROW}\n"
REASON = {"reason": "test"}
KEYED: dict[str, tuple[str, Any]] = {
    "PUT /v1/assets": ("org_s", [ASSET]),
    "PUT /v1/locations": ("org_o", [PLACE]),
    "POST /v1/assets/import": ("org_s", "id\n"),
    "POST /v1/organisations": ("org_o", {"id": "org_new", "name": "New"}),
    "POST /v1/organisations/{organisation_id}/suspend": ("org_o", REASON),
    "POST /v1/organisations/{organisation_id}/reinstate": ("org_o", None),
    "POST /v1/needs": ("org_b", {**NEED, "window": window()}),
    "POST /v1/needs/{need_id}/bids": (
        "org_s", {"assets": ["ast-1"], "kw": 1, "utilisation_price": "1"}
    ),
    "POST /v1/needs/{need_id}/clear": ("org_b", None),
    "POST /v1/contracts/{contract_id}/sign": ("org_b", None),
    "POST /v1/orders": ("org_b", order("need_1")),
    "POST /v1/orders/{order_id}/stop": ("org_b", REASON),
    "POST /v1/emergency-stop": ("org_b", {"scope": {"kind": "all"}, **REASON}),
    "POST /v1/readings": ("org_s", [READING]),
    "POST /v1/readings/import": ("org_s", CSV),
    "POST /v1/disputes": ("org_b", {"line_id": "stl_1", **REASON}),
    "POST /v1/disputes/{dispute_id}/resolve": ("org_o", {"accept": True, **REASON}),
    "POST /v1/webhooks": ("org_s", {"url": "http://127.0.0.1:9/", "events": ["order.settled"]}),
    "POST /v1/webhooks/{webhook_id}/rotate": ("org_s", None),
}  # fmt: skip


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with service(tmp_path) as made:
        yield made


async def send(http: httpx.AsyncClient, name: str, key: str, body: Any = None) -> httpx.Response:
    """One request as who may make it; `body` instead of the one of its row."""
    who, usual = KEYED[name]
    body = usual if body is None else body
    method, _, template = name.partition(" ")
    path = "/".join("x_1" if part.startswith("{") else part for part in template.split("/"))
    sent = {"content": body} if isinstance(body, str) else {"json": body}
    headers = by(who, **{"Idempotency-Key": key})
    return await http.request(method, path, headers=headers, **sent)


async def test_every_operation_that_makes_something_declares_the_key(
    http: httpx.AsyncClient,
) -> None:
    document = (await http.get("/openapi.json")).json()
    operations = {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items() for method, operation in item.items()
        if method in {"post", "put"}
    }  # fmt: skip
    assert operations.keys() == KEYED.keys() | MAKES_NOTHING.keys(), "add a row"
    for name, operation in operations.items():
        declared = [
            each["schema"]["maxLength"] for each in operation.get("parameters", [])
            if (each["in"], each["name"]) == ("header", "Idempotency-Key")
        ]  # fmt: skip
        assert declared == ([128] if name in KEYED else []), name


async def test_a_key_of_another_request_or_a_long_one_is_refused_everywhere(
    http: httpx.AsyncClient,
) -> None:
    for name in ("PUT /v1/assets", "POST /v1/needs", "POST /v1/organisations"):
        assert (await send(http, name, "taken")).is_success
    bodies = {"POST /v1/needs": {**NEED, "kw": 2.0, "window": window()}, "PUT /v1/assets": [],
              "POST /v1/organisations": {"id": "org_2", "name": "Two"}}  # fmt: skip
    for name in KEYED:
        refused = await send(http, name, "taken", bodies.get(name))
        assert (refused.status_code, refused.json()["field"]) == (422, "Idempotency-Key"), name
        assert refused.json()["rule"] == "one key stands for one request"
        long = await send(http, name, "x" * 129)
        assert (long.status_code, long.json()["field"]) == (422, "Idempotency-Key"), name
        assert "1 to 128" in long.json()["rule"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("POST /v1/readings", [READING, {**READING, "power_kw": 2}]),
        ("POST /v1/readings/import", f"{CSV}{ROW}\n"),
    ],
)
async def test_readings_are_counted_once_and_a_repeat_gets_the_kept_answer(
    http: httpx.AsyncClient, name: str, more: Any
) -> None:
    await send(http, "PUT /v1/assets", "assets")
    first = await send(http, name, "k1", more)
    counted = {"accepted": 1, "duplicates": 1, "rejected": 0, "errors": []}
    assert first.json() == counted
    assert (await send(http, name, "k1", more)).json() == counted
    other = await send(http, name, "k1")
    assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")
    again = await send(http, name, "k2")
    assert again.json() == {**counted, "accepted": 0}
    span = {"start": "2030-01-01T00:00:00Z", "end": "2030-01-02T00:00:00Z"}
    stored = await http.get("/v1/readings/m-1", params=span, headers=by("org_s"))
    assert [power for _, _, power in stored.json()["rows"]] == [1.0]


async def test_a_repeat_of_a_registration_gets_the_same_secret_and_makes_nothing(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    async with Aggregator(yes) as server:
        body = {"url": server.url, "events": ["order.settled"]}
        made = await send(http, "POST /v1/webhooks", "k1", body)
        assert made.status_code == 201, made.text
        again = await send(http, "POST /v1/webhooks", "k1", body)
        assert (again.status_code, again.json()) == (201, made.json())
        other = await send(http, "POST /v1/webhooks", "k1", {**body, "events": ["order.planned"]})
        assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")
    assert len((await http.get("/v1/webhooks", headers=by("org_s"))).json()) == 1
    path = f"/v1/webhooks/{made.json()['id']}/rotate"
    key = by("org_s", **{"Idempotency-Key": "k2"})
    rotated = [(await http.post(path, headers=key)).json()["secret"] for _ in range(2)]
    assert rotated[0] == rotated[1] != made.json()["secret"]
    secrets = [made.json()["secret"].encode(), rotated[0].encode()]
    kept = files(tmp_path)
    assert kept
    assert not any(secret in content for secret in secrets for content in kept)


def files(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
