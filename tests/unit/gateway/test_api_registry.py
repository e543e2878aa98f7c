"""Assets as CSV, who may bind what, the network tree, readings, organisations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.api import ASSET, by, service

HEADER = "id,feeder,technology,devices,meter,measurement_point,up_kw,down_kw"
GOOD = "ast-{0},F-1,battery,d-{0}a;d-{0}b,m-{0},site_net,5.0,2.5"


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with service(tmp_path) as made:
        yield made


async def send(
    http: httpx.AsyncClient, *rows: str, who: str = "org_s", query: str = ""
) -> dict[str, Any]:
    answer = await http.post(
        f"/v1/assets/import{query}", content="\n".join((HEADER, *rows)), headers=by(who)
    )
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


async def ids(http: httpx.AsyncClient, who: str = "org_s") -> list[str]:
    return [each["id"] for each in (await http.get("/v1/assets", headers=by(who))).json()]


async def test_a_bad_row_is_named_and_the_rest_goes_in(http: httpx.AsyncClient) -> None:
    report = await send(
        http, GOOD.format(1), "ast-2,F-1,battery,d-2,m-2,site_net,lots,0", GOOD.format(1),
        "ast-3,F-1,battery,d-1a,m-3,site_net,1,0", "ast-4,F-1,battery,d-4,m-4,roof,1,0",
        "ast-5,F-1", "ast-6,F-1,battery,d-6,m-6,site_net,0,0", "bad id,F-1,b,d,m,site_net,1,0",
        GOOD.format(9),
    )  # fmt: skip
    assert (report["accepted"], report["rejected"]) == (2, 7)
    found = [(each["line"], each["field"]) for each in report["errors"]]
    assert found == [(3, "up_kw"), (4, "id"), (5, "devices"), (6, "measurement_point"),
                     (7, "row"), (8, "up_kw"), (9, "id")]  # fmt: skip
    assert all(each["rule"] for each in report["errors"])
    assert await ids(http) == ["ast-1", "ast-9"]


async def test_a_dry_run_registers_nothing_and_finds_the_same(http: httpx.AsyncClient) -> None:
    await http.put(
        "/v1/assets",
        json=[{**ASSET, "id": "ast-7", "devices": ["d-2a"], "meter": "m-7"}],
        headers=by("org_t"),
    )
    rows = (GOOD.format(1), GOOD.format(2), "x")
    dry = await send(http, *rows, query="?dry_run=true")
    assert await ids(http) == []
    real = await send(http, *rows)
    assert dry == {**real, "dry_run": True}
    assert [(each["line"], each["field"]) for each in real["errors"]] == [
        (3, "devices"),
        (4, "row"),
    ]


async def test_what_is_exported_is_imported_again_and_changes_nothing(
    http: httpx.AsyncClient,
) -> None:
    await send(http, *(GOOD.format(n) for n in range(3)))
    before = (await http.get("/v1/assets", headers=by("org_s"))).json()
    exported = (await http.get("/v1/assets/export", headers=by("org_s"))).text
    answer = await http.post("/v1/assets/import", content=exported, headers=by("org_s"))
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (3, 0)
    assert (await http.get("/v1/assets", headers=by("org_s"))).json() == before


async def test_more_rows_than_one_transaction_takes_all_go_in(http: httpx.AsyncClient) -> None:
    report = await send(http, *(GOOD.format(n) for n in range(2_100)))
    assert (report["accepted"], report["errors"]) == (2_100, [])


async def test_a_wrong_header_is_refused_whole(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/assets/import", content="id;feeder", headers=by("org_s"))
    assert (answer.status_code, answer.json()["field"]) == (422, "header")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "ast-1", "devices": ["d-9"], "meter": "m-9"}, "id"),
        ({"id": "ast-9", "devices": ["bat-1"], "meter": "m-9"}, "devices"),
        ({"id": "ast-9", "devices": ["d-9"], "meter": "m-1"}, "meter"),
        ({"id": "ast-9", "devices": ["d-9"], "meter": "bat-1"}, "meter"),
        ({"id": "ast-9", "devices": ["m-1"], "meter": "m-9"}, "devices"),
    ],
)
async def test_nobody_binds_what_another_has_bound(
    http: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    assert (await http.put("/v1/assets", json=[ASSET], headers=by("org_s"))).is_success
    answer = await http.put("/v1/assets", json=[{**ASSET, **change}], headers=by("org_t"))
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert await ids(http, "org_t") == []


async def test_a_device_serves_one_asset_and_can_be_moved(http: httpx.AsyncClient) -> None:
    await http.put("/v1/assets", json=[ASSET], headers=by("org_s"))
    second = {**ASSET, "id": "ast-2"}
    twice = await http.put("/v1/assets", json=[second], headers=by("org_s"))
    assert (twice.status_code, twice.json()["field"]) == (422, "devices")
    moved = [{**ASSET, "devices": ["bat-2"]}, second]
    assert (await http.put("/v1/assets", json=moved, headers=by("org_s"))).is_success
    free = [{**ASSET, "devices": ["bat-1", "bat-3"]}, {**second, "devices": ["bat-2"]}]
    assert (await http.put("/v1/assets", json=free, headers=by("org_s"))).is_success


async def test_an_asset_that_can_move_neither_way_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.put("/v1/assets", json=[{**ASSET, "up_kw": 0}], headers=by("org_s"))
    assert (answer.status_code, answer.json()["field"]) == (422, "up_kw")


async def test_json_readings_report_bad_rows_and_repeat_harmlessly(
    http: httpx.AsyncClient,
) -> None:
    await http.put("/v1/assets", json=[ASSET], headers=by("org_s"))
    row = {"series": "m-1", "start": "2030-01-01T00:00:00Z", "seconds": 60, "power_kw": -1.5}
    rows = [row, {**row, "start": "2030-01-01T00:01:00"}, {**row, "series": "m-9"},
            {**row, "start": "2030-01-01T00:02:00Z", "power_kw": 2}, {"series": 3}]  # fmt: skip
    for accepted, duplicates in ((2, 0), (0, 2)):
        report = (await http.post("/v1/readings", json=rows, headers=by("org_s"))).json()
        counts = report["accepted"], report["duplicates"], report["rejected"]
        assert counts == (accepted, duplicates, 3)
        assert [(e["record"], e["field"]) for e in report["errors"]][:2] == [
            (2, "start"), (3, "series"),
        ]  # fmt: skip
    span = {"start": "2030-01-01T00:00:00Z", "end": "2030-01-02T00:00:00Z"}
    found = await http.get("/v1/readings/m-1", params=span, headers=by("org_s"))
    assert [value for _, _, value in found.json()["rows"]] == [-1.5, 2.0]
    assert (await http.get("/v1/readings/m-1", params=span, headers=by("org_t"))).status_code == 404
    assert (await http.get("/v1/readings/m-1", params=span, headers=by("org_b"))).status_code == 403


TREE = [
    {"id": "US", "name": "US", "level": "country"},
    {"id": "Z-1", "name": "Zone 1", "level": "zone", "parent": "US"},
    {"id": "S-1", "name": "Substation 1", "level": "substation", "parent": "Z-1"},
    {"id": "F-1", "name": "Feeder 1", "level": "feeder", "parent": "S-1"},
    {"id": "F-2", "name": "Feeder 2", "level": "feeder", "parent": "S-1"},
]


async def test_the_tree_shows_what_is_registered_below(http: httpx.AsyncClient) -> None:
    assert (await http.put("/v1/locations", json=TREE, headers=by("org_o"))).is_success
    await http.put("/v1/assets", json=[ASSET], headers=by("org_s"))
    other = {**ASSET, "id": "ast-2", "devices": ["bat-2"], "meter": "m-2", "feeder": "F-2"}
    loose = {**ASSET, "id": "ast-3", "devices": ["bat-3"], "meter": "m-3", "feeder": "F-9"}
    await http.put("/v1/assets", json=[other, loose], headers=by("org_t"))
    zone = (await http.get("/v1/locations/Z-1", headers=by("org_s"))).json()
    assert [each["id"] for each in zone["path"]] == ["US"]
    assert [each["id"] for each in zone["children"]] == ["S-1"]
    assert (zone["assets"], zone["totals"]) == (["ast-1"], None)
    seen = (await http.get("/v1/locations/Z-1", headers=by("org_b"))).json()
    assert seen["assets"] == []
    assert (seen["totals"]["assets"], seen["totals"]["registered_up_kw"]) == (2, 10.0)
    places = (await http.get("/v1/locations?level=feeder", headers=by("org_t"))).json()
    assert [each["id"] for each in places] == ["F-1", "F-2", "F-9"]
    assert (await http.get("/v1/locations/F-9", headers=by("org_s"))).status_code == 404
    assert (await http.get("/v1/locations/F-9", headers=by("org_t"))).status_code == 200


async def test_an_organisation_is_let_in_suspended_and_let_in_again(
    http: httpx.AsyncClient,
) -> None:
    made = await http.post(
        "/v1/organisations", json={"id": "org_x", "name": "X"}, headers=by("org_o")
    )
    assert (made.status_code, made.json()["state"]) == (201, "active")
    twice = await http.post(
        "/v1/organisations", json={"id": "org_x", "name": "X"}, headers=by("org_o")
    )
    assert twice.status_code == 422
    own = (await http.get("/v1/organisations", headers=by("org_s"))).json()
    assert [each["id"] for each in own] == ["org_s"]
    path = "/v1/organisations/org_s"
    why = {"reason": "phantom meter"}
    for _ in range(2):
        shut = await http.post(f"{path}/suspend", json=why, headers=by("org_o"))
        assert (shut.status_code, shut.json()["reason"]) == (200, "phantom meter")
    assert (await http.get("/v1/assets", headers=by("org_s"))).status_code == 403
    own = await http.post("/v1/organisations/org_o/suspend", json=why, headers=by("org_o"))
    assert own.status_code == 422
    await http.post(f"{path}/reinstate", headers=by("org_o"))
    assert (await http.get("/v1/assets", headers=by("org_s"))).status_code == 200
    facts = (await http.get("/v1/journal?stream=org_s", headers=by("org_s"))).json()
    kinds = [record["fact"]["kind"] for record in facts]
    assert kinds == ["OrganisationSuspended", "OrganisationReinstated"]
