"""The API of the real service, over HTTP in process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.api import ASSET, awarded_need, by, order, service, window


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with service(tmp_path) as client:
        yield client


async def test_nobody_passes_without_a_token(http: httpx.AsyncClient) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic org_b"}):
        answer = await http.post("/v1/orders", json={}, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"


async def test_every_v1_route_needs_a_token(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    routes = [(path, method) for path, item in document["paths"].items() for method in item]
    assert len([path for path, _ in routes if path.startswith("/v1")]) >= 14
    for path, method in routes:
        if path.startswith("/v1"):
            answer = await http.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status_code == 401, (method, path)


async def test_roles_are_kept_apart(http: httpx.AsyncClient) -> None:
    assert (await http.post("/v1/orders", json=order("x"), headers=by("org_s"))).status_code == 403
    assert (await http.get("/v1/devices", headers=by("org_b"))).status_code == 403
    assert (await http.put("/v1/assets", json=[ASSET], headers=by("org_b"))).status_code == 403


async def test_an_order_is_accepted_once_per_key(http: httpx.AsyncClient) -> None:
    need_id = await awarded_need(http)
    headers = by("org_b", **{"Idempotency-Key": "k1"})
    first = await http.post("/v1/orders", json=order(need_id), headers=headers)
    again = await http.post("/v1/orders", json=order(need_id), headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    facts = await http.get(f"/v1/orders/{first.json()['id']}/facts", headers=by("org_b"))
    kinds = [record["fact"]["kind"] for record in facts.json()]
    assert kinds.count("OrderSubmitted") == 1
    other = await http.post("/v1/orders", json=order(need_id, kw=1.0), headers=headers)
    assert other.status_code == 422


async def test_an_order_is_seen_by_its_sides_only(http: httpx.AsyncClient) -> None:
    need_id = await awarded_need(http)
    made = await http.post("/v1/orders", json=order(need_id), headers=by("org_b"))
    path = f"/v1/orders/{made.json()['id']}"
    for organisation, status in (
        ("org_b", 200),
        ("org_o", 200),
        ("org_other", 404),
        ("org_t", 404),
    ):
        assert (await http.get(path, headers=by(organisation))).status_code == status
    foreign = await http.get(f"/v1/needs/{need_id}/contracts", headers=by("org_t"))
    assert foreign.json() == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kw": 4.0, "interval": {"start": "2001-01-01T00:00Z", "end": "2001-01-01T00:05Z"}},
         "interval"),
        ({"interval": {"start": window()["start"].replace(":00:00", ":01:00"),
                       "end": window()["end"]}}, "interval"),
        ({"need_id": "need_unknown"}, "need_id"),
    ],
)  # fmt: skip
async def test_a_refusal_names_field_and_rule(
    http: httpx.AsyncClient, changes: dict[str, Any], field: str
) -> None:
    need_id = await awarded_need(http)
    answer = await http.post("/v1/orders", json={**order(need_id), **changes}, headers=by("org_b"))
    assert answer.status_code in {404, 422}
    assert answer.json()["field"] == field
    assert answer.json()["rule"]


async def test_unknown_fields_and_naive_instants_are_refused(http: httpx.AsyncClient) -> None:
    naive = {"start": "2030-01-01T00:00:00", "end": "2030-01-01T01:00:00"}
    for body in (order("n", surprise=1), order("n", interval=naive), order("n", kw=-1)):
        answer = await http.post("/v1/orders", json=body, headers=by("org_b"))
        assert answer.status_code == 422
        assert answer.json()["errors"]


async def test_a_bad_row_of_an_import_is_reported_and_the_rest_goes_in(
    http: httpx.AsyncClient,
) -> None:
    await http.put("/v1/assets", json=[ASSET], headers=by("org_s"))
    rows = ["series,start_utc,seconds,power_kw", "m-1,2030-01-01T00:00:00Z,3600,-1.5",
            "m-1,2030-01-01T01:00:00Z,3600,lots", "m-other,2030-01-01T02:00:00Z,3600,-1",
            "m-1,2030-01-01 03:00,3600,-1", "m-1,2030-01-01T04:00:00Z,3600,-2.5"]  # fmt: skip
    answer = await http.post("/v1/readings/import", content="\n".join(rows), headers=by("org_s"))
    report = answer.json()
    assert (report["accepted"], report["rejected"]) == (2, 3)
    assert [(e["line"], e["field"]) for e in report["errors"]] == [
        (3, "power_kw"), (4, "series"), (5, "start_utc"),
    ]  # fmt: skip
    span = {"start": "2030-01-01T00:00:00Z", "end": "2030-01-02T00:00:00Z"}
    stored = await http.get("/v1/readings/m-1", params=span, headers=by("org_o"))
    assert [row[2] for row in stored.json()["rows"]] == [-1.5, -2.5]


async def test_a_body_above_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/readings/import", content=b"x" * 200_001, headers=by("org_s"))
    assert answer.status_code == 413


async def test_metrics_parse_and_show_zero(http: httpx.AsyncClient) -> None:
    text = (await http.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    outcomes = {s.labels["outcome"] for s in families["flexway_setpoints"].samples
                if s.name.endswith("_total")}  # fmt: skip
    assert outcomes == {"issued", "applied", "refused", "unreachable", "unconfirmed"}
    assert (await http.get("/readyz")).json()["status"] == "ready"


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with service(tmp_path) as http:
        need_id = await awarded_need(http)
        key = by("org_b", **{"Idempotency-Key": "k1"})
        made = (await http.post("/v1/orders", json=order(need_id), headers=key)).json()
    async with service(tmp_path) as http:
        again = (await http.post("/v1/orders", json=order(need_id), headers=key)).json()
        assert again == made
        verdict = await http.get("/v1/journal/verification", headers=by("org_o"))
        assert verdict.json()["verified"]
