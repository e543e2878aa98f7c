"""A control room at work: dry run, confirmed order, live stream, feeder totals, statement, dispute.

And an aggregator that takes part with the API alone: CSV in, bids, its own part of an order,
its deliveries, a statement that adds up.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.harness.lab import client_settings, token_of, wait_for
from tests.harness.street import DEVICES, Street, street

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(300)]
DAY = {"from": "2017-07-20T00:00:00Z", "to": "2017-07-22T00:00:00Z"}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    folder: Path = tmp_path_factory.mktemp("room")
    with street(folder) as here:
        here.lab.sections["api"] = {
            "port": 0, "confirm_orders": True, "clients": client_settings(),
        }  # fmt: skip
        here.lab.write_settings()
        gateway = here.lab.start()
        try:
            here.await_telemetry()
            yield here
        finally:
            gateway.stop()


def call(here: Street, who: str, method: str, path: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token_of(who)}", **more.pop("headers", {})}
    return httpx.request(method, here.lab.url + path, headers=headers, timeout=30, **more)


def listen(here: Street, order_id: str) -> Any:
    token = base64.urlsafe_b64encode(token_of("org_buyer").encode()).decode().rstrip("=")
    return connect(
        here.lab.url.replace("http", "ws") + f"/v1/orders/{order_id}/stream",
        subprotocols=["flexway.v1", f"bearer.{token}"],  # type: ignore[list-item]
    )


def test_from_the_dry_run_to_the_statement(room: Street) -> None:
    need = room.sign_contract(periods=2, lead_s=14.0)
    body = {"need_id": need, "kw": 8.0, "interval": room.window}
    shown = call(room, "org_buyer", "POST", "/v1/orders/dry-run", json=body).json()
    assert shown["feasible"]
    assert {each["device_id"] for each in shown["allocations"]} == set(DEVICES)
    hours = 2 * 5 / 60
    planned = sum(each["planned_kw"] for each in shown["calls"])
    assert Decimal(shown["cost"]) == round(Decimal(str(planned * hours * 0.3)), 2)
    refused = call(room, "org_buyer", "POST", "/v1/orders", json=body)
    assert refused.json()["field"] == "confirm"
    confirmed = {**body, "confirm": shown["confirm"]}
    made = call(room, "org_buyer", "POST", "/v1/orders", json=confirmed)
    assert made.status_code == 202, made.text
    order_id = made.json()["id"]
    heard = list(messages(room, order_id))
    kinds = [m["record"]["fact"]["kind"] for m in heard if m["type"] == "fact"]
    assert kinds[-1] == "OrderSettled"
    assert {"SetpointsIssued", "SetpointsApplied", "WindowClosed"} <= set(kinds)
    allocated = {
        each["device_id"] for m in heard if m["type"] == "fact"
        for each in m["record"]["fact"].get("allocations", [])
    }  # fmt: skip
    assert allocated <= {each["device_id"] for each in shown["allocations"]}
    power = [m for m in heard if m["type"] == "measured"]
    assert len({m["period_start"] for m in power}) >= 2
    assert all(m["devices"] <= m["of_devices"] == len(DEVICES) for m in power)
    check_aggregator(room, order_id)


def messages(room: Street, order_id: str) -> Iterator[dict[str, Any]]:
    """What a stream says until the order is settled; feeder totals are looked at on the way."""
    totals = {}
    with listen(room, order_id) as stream:
        while True:
            message = json.loads(stream.recv(timeout=60))
            yield message
            kind = message["record"]["fact"]["kind"] if message["type"] == "fact" else ""
            if kind == "SetpointsApplied":
                answer = call(room, "org_buyer", "GET", "/v1/locations/F-114").json()
                totals = answer["totals"]
            if kind == "OrderSettled":
                break
    assert totals["devices"] == len(DEVICES)
    assert 1 <= totals["driven"] <= len(DEVICES)
    assert totals["registered_up_kw"] == 5.0 * len(DEVICES)


def check_aggregator(room: Street, order_id: str) -> None:
    """The seller sees its part of the order, and is paid to the cent what the lines say."""
    seen = call(room, "org_seller", "GET", f"/v1/orders/{order_id}").json()
    assert {each["seller"] for each in seen["calls"]} == {"org_seller"}
    assert seen["events"] == []
    path = f"/v1/orders/{order_id}/deliveries"
    deliveries = call(room, "org_seller", "GET", path).json()
    called = [each for each in deliveries if each["instructed_kw"] > 0]
    assert [each["version"] for each in called] == [1, 1]
    assert all(each["delivery"]["baseline_method"] == "zero" for each in called)
    statement = call(room, "org_seller", "GET", "/v1/statements", params=DAY).json()
    amounts = [Decimal(each["line"]["amount"]) for each in statement["lines"]]
    assert amounts
    assert Decimal(statement["totals"][0]["received"]) == sum(amounts)
    buyer = call(room, "org_buyer", "GET", "/v1/statements", params=DAY).json()
    assert buyer["totals"][0]["paid"] == statement["totals"][0]["received"]
    text = call(room, "org_seller", "GET", "/v1/statements", params={**DAY, "format": "csv"}).text
    assert sum(Decimal(row.split(",")[9]) for row in text.splitlines()[1:]) == sum(amounts)
    dispute(room, statement["lines"][0]["line"]["id"])


def dispute(room: Street, line_id: str) -> None:
    body = {"line_id": line_id, "reason": "the meter was replaced at noon"}
    made = call(room, "org_seller", "POST", "/v1/disputes", json=body)
    assert made.status_code == 201
    assert call(room, "org_buyer", "POST", "/v1/disputes", json=body).status_code == 422
    path = f"/v1/disputes/{made.json()['id']}"
    decision = {"accept": True, "reason": "seen"}
    assert call(room, "org_buyer", "POST", f"{path}/resolve", json=decision).status_code == 403
    decided = call(room, "org_operator", "POST", f"{path}/resolve", json=decision).json()
    assert (decided["state"], decided["resolution"]) == ("accepted", "seen")
    again = call(room, "org_operator", "POST", f"{path}/resolve", json=decision)
    assert again.status_code == 422
    order_id = decided["order_id"]
    facts = call(room, "org_seller", "GET", f"/v1/journal?stream={order_id}").json()
    assert [each["fact"]["kind"] for each in facts] == ["DisputeOpened", "DisputeResolved"]


def test_an_order_is_stopped_before_it_begins_and_frees_its_contract(room: Street) -> None:
    need = room.sign_contract(periods=2, lead_s=200.0)
    body = {"need_id": need, "kw": 8.0, "interval": room.window}

    def confirmed() -> dict[str, Any]:
        shown = call(room, "org_buyer", "POST", "/v1/orders/dry-run", json=body).json()
        return {**body, "confirm": shown["confirm"]}

    first = call(room, "org_buyer", "POST", "/v1/orders", json=confirmed()).json()["id"]
    room.await_state(first, "planned")
    full = call(room, "org_buyer", "POST", "/v1/orders/dry-run", json=body).json()
    assert not full["feasible"]
    stopped = call(room, "org_buyer", "POST", f"/v1/orders/{first}/stop", json={"reason": "no"})
    assert stopped.json()["state"] == "stopped"
    second = call(room, "org_buyer", "POST", "/v1/orders", json=confirmed()).json()["id"]
    room.await_state(second, "planned")

    def withdrawn() -> bool:
        setpoints = room.order(first)["setpoints"]
        return all(each["state"] != "planned" for each in setpoints)

    wait_for(withdrawn, seconds=10, what="setpoints withdrawn")
    assert {each["state"] for each in room.order(second)["setpoints"]} == {"planned"}
    listed = call(room, "org_buyer", "GET", "/v1/orders", params={"state": "stopped"}).json()
    assert [each["order"]["id"] for each in listed] == [first]
