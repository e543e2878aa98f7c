"""The real service on PostgreSQL and Redis, by configuration alone: a market, a kill, a restart."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from marketplace_core.errors import RequestError
from tests.harness.lab import Lab, contract, next_period, wait_for
from tests.harness.servers import PASSWORD, PostgresServer, RedisServer, postgres, redis

pytestmark = [pytest.mark.process]
ASSET = {"id": "ast-1", "feeder": "F-114", "technology": "any", "devices": ["nobody"],
         "meter": "m-1", "measurement_point": "device", "up_kw": 5.0}  # fmt: skip
READINGS = "series,start_utc,seconds,power_kw\n" + "".join(
    f"m-1,2017-07-20T{hour:02}:00:00Z,3600,-{hour}.5\n" for hour in range(1, 20)
)


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with redis() as server:
        yield server


@pytest.fixture
def lab(
    tmp_path: Path, postgres_server: PostgresServer, redis_server: RedisServer
) -> Iterator[Lab]:
    for name in ("database", "redis"):
        (tmp_path / f"{name}.password").write_text(PASSWORD + "\n")
    url = postgres_server.database()
    made = Lab(tmp_path, datetime(2017, 7, 20, 22, 0, tzinfo=UTC), speed=1.0)
    made.sections = {
        "store": {"database": url, "readings": url, "root_every_s": 0.2, "patience_s": 20.0,
                  "database_password_file": "database.password"},
        "bus": {"kind": "redis", "live_state": "redis", "url": redis_server.url,
                "password_file": "redis.password", "prefix": tmp_path.name},
    }  # fmt: skip
    made.wall_epoch = time.time()
    made.write_settings()
    yield made
    made.close()


def settled_market(lab: Lab) -> tuple[str, dict[str, str]]:
    start = next_period(lab.market_now() + timedelta(minutes=30), 5)
    window = {"start": start.isoformat(), "end": (start + timedelta(minutes=5)).isoformat()}
    need = contract(lab, [ASSET], kw=5.0, window=window)
    return need, window


def order_of(lab: Lab, order_id: str) -> dict[str, Any]:
    found: dict[str, Any] = lab.client("org_buyer").get(f"/v1/orders/{order_id}")
    return found


def kinds(lab: Lab, order_id: str) -> list[str]:
    facts = lab.client("org_buyer").get(f"/v1/orders/{order_id}/facts")
    return [record["fact"]["kind"] for record in facts]


def test_a_market_on_servers_survives_a_kill_of_the_service(
    lab: Lab, redis_server: RedisServer
) -> None:
    service = lab.start()
    try:
        need, window = settled_market(lab)
        report = lab.client("org_seller").import_readings(READINGS)
        assert (report["accepted"], report["rejected"]) == (19, 0)
        order = {"need_id": need, "kw": 5.0, "interval": window}
        made = lab.client("org_buyer").submit_order(order, key="the-order")
        # Nothing is bound to the asset: award hands on, plan says that nobody can deliver.
        wait_for(lambda: order_of(lab, made["id"])["state"] == "infeasible", seconds=20,
                 what="the street")  # fmt: skip
        before = kinds(lab, made["id"])
        groups = redis_server.keys("XINFO", "GROUPS", f"{lab.folder.name}:journal:0")
        assert {"award", "plan", "dispatch", "observe", "verify", "settle"} <= set(groups.split())
    finally:
        service.kill()
    service = lab.start()
    try:
        assert lab.client("org_buyer").submit_order(order, key="the-order") == made
        assert kinds(lab, made["id"]) == before == ["OrderSubmitted", "OrderAwarded",
                                                    "OrderInfeasible"]  # fmt: skip
        agreed = lab.client("org_seller").get(f"/v1/needs/{need}/contracts")
        assert [sorted(c["signed_by"]) for c in agreed] == [["org_buyer", "org_seller"]]
        span = {"start": "2017-07-20T00:00:00Z", "end": "2017-07-21T00:00:00Z"}
        rows = lab.client("org_operator").get("/v1/readings/m-1", **span)["rows"]
        assert [row[2] for row in rows] == [-hour - 0.5 for hour in range(1, 20)]
        again = lab.client("org_seller").import_readings(READINGS)
        assert (again["accepted"], again["duplicates"]) == (0, 19)
        rows = lab.client("org_operator").get("/v1/readings/m-1", **span)["rows"]
        assert len(rows) == 19
        assert lab.client("org_operator").get("/v1/journal/verification")["verified"]
    finally:
        assert service.stop() == 0, service.tail()
    assert PASSWORD not in (lab.folder / "gateway.log").read_text()
    verdict = verify(lab)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert "verified" in verdict.stdout


def verify(lab: Lab) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "journal", "verify", "--config", str(lab.settings_file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_service_lives_through_a_kill_of_both_servers(
    lab: Lab, postgres_server: PostgresServer, redis_server: RedisServer
) -> None:
    service = lab.start()
    try:
        need, window = settled_market(lab)
        order = {"need_id": need, "kw": 1.0, "interval": window}
        made = []
        for number, server in enumerate((redis_server, postgres_server, redis_server)):
            server.kill()
            if server is postgres_server:
                server.start()  # an order waits for it; for Redis nobody waits
            made.append(lab.client("org_buyer").submit_order(order, key=f"order-{number}")["id"])
            wait_for(lambda: order_of(lab, made[-1])["state"] == "infeasible", seconds=20,
                     what="the street")  # fmt: skip
            if server is redis_server:
                assert 'flexway_server_away{server="bus"} 1.0' in metrics(lab)
                server.start()
                wait_for(lambda: 'flexway_server_away{server="bus"} 0.0' in metrics(lab),
                         seconds=20, what="the bus to recover")  # fmt: skip
        assert len(set(made)) == 3
        assert service.running
    finally:
        assert service.stop() == 0, service.tail()
    assert verify(lab).returncode == 0


def metrics(lab: Lab) -> str:
    return httpx.get(f"{lab.url}/metrics").text


def test_a_second_service_takes_over_and_the_first_one_writes_nothing_any_more(
    lab: Lab, tmp_path: Path
) -> None:
    first = lab.start()
    settled_market(lab)
    other = Lab(tmp_path / "other", lab.market_epoch, speed=1.0)
    other.folder.mkdir()
    for name in ("database", "redis"):
        (other.folder / f"{name}.password").write_text(PASSWORD)
    other.sections, other.wall_epoch = lab.sections, lab.wall_epoch
    other.write_settings()
    second = other.start()
    try:
        refused = publish(lab)
        assert "503" in refused
        assert "taken over" in refused
        assert publish(other) == ""
    finally:
        assert second.stop() == 0, second.tail()
        first.stop()
        other.close()
    assert verify(other).returncode == 0


def publish(lab: Lab) -> str:
    """Publish a need; what went wrong."""
    start = next_period(lab.market_now() + timedelta(minutes=30), 5)
    window = {"start": start.isoformat(), "end": (start + timedelta(minutes=5)).isoformat()}
    need = {"feeder": "F-1", "direction": "UP", "kw": 1.0, "window": window,
            "price_cap": "600", "currency": "USD", "baseline": "zero"}  # fmt: skip
    try:
        lab.client("org_buyer").publish_need(need)
    except RequestError as error:
        return str(error)
    return ""
