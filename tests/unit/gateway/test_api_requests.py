"""How requests are read: limits, instants, keys, pages, and answers that give nothing away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.api import ASSET, awarded_need, by, order, service, window

NEED = {"feeder": "F-1", "direction": "UP", "kw": 4.0, "price_cap": "300", "currency": "USD",
        "baseline": "zero"}  # fmt: skip


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with service(tmp_path) as made:
        yield made


async def submitted(http: httpx.AsyncClient) -> float:
    text = (await http.get("/metrics")).text
    line = next(x for x in text.splitlines() if 'flexway_orders_total{state="submitted"}' in x)
    return float(line.rpartition(" ")[2])


async def test_a_replay_is_not_counted(http: httpx.AsyncClient) -> None:
    body = order(await awarded_need(http))
    for _ in range(3):
        headers = by("org_b", **{"Idempotency-Key": "k1"})
        assert (await http.post("/v1/orders", json=body, headers=headers)).status_code == 202
    assert await submitted(http) == 1.0


async def test_a_key_belongs_to_its_organisation_and_its_query(http: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "same"}
    text = "id,feeder,technology,devices,meter,measurement_point,up_kw,down_kw\n"
    first = await http.post("/v1/assets/import", content=text, headers=by("org_s", **key))
    other = await http.post("/v1/assets/import", content=text, headers=by("org_t", **key))
    dry = await http.post(
        "/v1/assets/import?dry_run=true", content=text, headers=by("org_s", **key)
    )
    assert [each.status_code for each in (first, other, dry)] == [200, 200, 422]
    assert dry.json()["field"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["", "x" * 129, "caf\u00e9"])
async def test_a_key_that_cannot_be_kept_is_refused(http: httpx.AsyncClient, key: str) -> None:
    headers = {**by("org_b"), "Idempotency-Key": key.encode("latin-1")}
    body = {**NEED, "window": window()}
    answer = await http.post("/v1/needs", json=body, headers=headers)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")


async def test_a_foreign_order_and_a_missing_one_look_the_same(http: httpx.AsyncClient) -> None:
    made = await http.post("/v1/orders", json=order(await awarded_need(http)), headers=by("org_b"))
    theirs = made.json()["id"]
    missing = theirs[:-2] + "ZZ"
    for ending in ("", "/facts", "/statement", "/deliveries"):
        foreign = await http.get(f"/v1/orders/{theirs}{ending}", headers=by("org_other"))
        unknown = await http.get(f"/v1/orders/{missing}{ending}", headers=by("org_other"))
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.text.replace(theirs, missing) == unknown.text
        assert foreign.json()["rule"] == "known order"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/readings/m-1?start=2030-01-01T00:00:00&end=2030-01-02T00:00:00Z",
        "/v1/statements?from=2030-01-01T00:00:00&to=2030-01-02T00:00:00Z",
        "/v1/orders?from=2030-01-01T00:00:00",
        "/v1/readings/m-1?start=2030-01-02T00:00:00Z&end=2030-01-01T00:00:00Z",
        "/v1/readings/m-1?start=2030-01-01T00:00:00Z&end=2031-01-01T00:00:00Z",
        "/v1/statements?from=2030-01-02T00:00:00Z&to=2030-01-01T00:00:00Z",
        "/v1/readings/m-1?start=0001-01-01T00:00:00%2B14:00&end=0001-01-02T00:00:00Z",
        "/v1/readings/m-1?start=9999-12-30T00:00:00Z&end=9999-12-31T23:59:59Z",
        "/v1/orders?to=9999-12-31T23:59:59-14:00",
        "/v1/journal?cursor=Wzk5OTk5OTk5OTk5OTk5OTk5OTk5LDEsMV0",
        "/v1/assets?limit=0",
        "/v1/assets?limit=201",
        "/v1/assets?cursor=%%%",
        "/v1/assets?cursor=e30",
        "/v1/assets?cursor=WzFd",
        "/v1/assets?cursor=WyJhIiwiYiJd",
        "/v1/journal?cursor=WyJhIl0",
    ],
)
async def test_a_bad_query_is_a_422(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path, headers=by("org_o"))
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_chunked_body_above_the_limit_gets_its_413(http: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000

    for path in ("/v1/readings/import", "/v1/assets/import", "/v1/needs"):
        answer = await http.post(
            path, content=chunks(), headers=by("org_s", **{"Content-Type": "application/json"})
        )
        assert answer.status_code == 413, path
        assert answer.headers["content-type"] == "application/problem+json"


async def test_an_unknown_baseline_is_a_broken_rule_and_no_missing_page(
    http: httpx.AsyncClient,
) -> None:
    body = {**NEED, "baseline": "crystal_ball", "window": window()}
    answer = await http.post("/v1/needs", json=body, headers=by("org_b"))
    assert (answer.status_code, answer.json()["field"]) == (422, "baseline")


async def every_page(http: httpx.AsyncClient, path: str, who: str) -> tuple[list[Any], list[int]]:
    found: list[Any] = []
    sizes: list[int] = []
    following: str | None = path
    while following is not None:
        answer = await http.get(following, headers=by(who))
        found += answer.json()
        sizes.append(len(answer.json()))
        following = answer.links.get("next", {}).get("url")
    return found, sizes


async def test_pages_hold_everything_once_and_in_order(http: httpx.AsyncClient) -> None:
    assets = [{**ASSET, "id": f"ast-{n:03}", "devices": [f"d-{n}"], "meter": f"m-{n}"}
              for n in range(25)]  # fmt: skip
    await http.put("/v1/assets", json=assets, headers=by("org_s"))
    await http.put("/v1/assets", json=[{**ASSET, "id": "ast-0075"}], headers=by("org_t"))
    found, sizes = await every_page(http, "/v1/assets?limit=10&feeder=F-1", "org_s")
    assert [each["id"] for each in found] == [f"ast-{n:03}" for n in range(25)]
    assert sizes == [10, 10, 5]
    # What comes in between two pages moves nothing that was shown.
    first = await http.get("/v1/assets?limit=10", headers=by("org_s"))
    early = [{**ASSET, "id": "ast-0000", "devices": ["d-x"], "meter": "m-x"}]
    await http.put("/v1/assets", json=early, headers=by("org_s"))
    rest, _ = await every_page(http, first.links["next"]["url"], "org_s")
    assert [each["id"] for each in rest] == [f"ast-{n:03}" for n in range(10, 25)]
    whole, sizes = await every_page(http, "/v1/assets?limit=26", "org_s")
    assert (len(whole), sizes) == (26, [26])


async def test_facts_and_the_journal_come_in_pages(http: httpx.AsyncClient) -> None:
    need = await awarded_need(http)
    found, sizes = await every_page(http, "/v1/journal?limit=2", "org_o")
    kinds = [record["fact"]["kind"] for record in found]
    assert kinds == ["AssetsRegistered", "NeedPublished", "BidPlaced", "AuctionCleared",
                     "ContractSigned", "ContractSigned"]  # fmt: skip
    assert sizes == [2, 2, 2]
    seen, _ = await every_page(http, f"/v1/journal?stream={need}", "org_s")
    assert [record["fact"]["kind"] for record in seen] == [
        "NeedPublished", "BidPlaced", "ContractSigned", "ContractSigned",
    ]  # fmt: skip
    nothing, _ = await every_page(http, "/v1/journal", "org_t")
    assert nothing == []


@pytest.mark.parametrize(
    "window",
    [
        {"start": "0001-01-01T00:00:00+14:00", "end": "2030-01-01T00:00:00Z"},
        {"start": "2030-01-01T00:00:00Z", "end": "9999-12-31T23:59:59-14:00"},
        {"start": "2030-01-01T00:00:00Z", "end": "9999-12-31T23:59:59Z"},
    ],
)
async def test_an_instant_nobody_can_reckon_with_is_refused(
    http: httpx.AsyncClient, window: dict[str, str]
) -> None:
    answer = await http.post("/v1/needs", json={**NEED, "window": window}, headers=by("org_b"))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].startswith("body.window.")


async def test_a_row_that_is_no_csv_is_reported_with_its_line(http: httpx.AsyncClient) -> None:
    await http.put("/v1/assets", json=[ASSET], headers=by("org_s"))
    good = "m-1,2030-01-01T00:00:00Z,60,1"
    rows = ["series,start_utc,seconds,power_kw", good, "m-1,0001-01-01T00:00:00+14:00,60,1",
            "m-1,9999-12-31T23:59:59Z,60,1", '"' + "x" * 140_000]  # fmt: skip
    answer = await http.post("/v1/readings/import", content="\n".join(rows), headers=by("org_s"))
    found = answer.json()
    assert (answer.status_code, found["accepted"]) == (200, 1)
    assert [(each["line"], each["field"]) for each in found["errors"]] == [
        (3, "start_utc"), (4, "start_utc"), (5, "row"),
    ]  # fmt: skip
    header = "id,feeder,technology,devices,meter,measurement_point,up_kw,down_kw"
    assets = await http.post(
        "/v1/assets/import", content=f'{header}\n"{"x" * 140_000}', headers=by("org_s")
    )
    assert assets.json()["errors"][0]["line"] == 2
