"""Stopping: devices are let go at once, and nothing of a stopped order ever comes back."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.lab import token_of, wait_for
from tests.harness.street import DEVICES, Street, street

pytestmark = [pytest.mark.process]


def post(here: Street, organisation: str, path: str, body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token_of(organisation)}"}
    return httpx.post(here.lab.url + path, json=body, headers=headers, timeout=30)


def running_order(here: Street) -> str:
    here.await_telemetry()
    order_id = here.submit(here.sign_contract(periods=12, lead_s=4.0))
    assert order_id is not None

    def in_force() -> bool:
        return {e["device"] for e in here.log() if e.get("effect") == "set"} == set(DEVICES)

    wait_for(in_force, seconds=20, what="setpoints in force")
    here.await_state(order_id, "delivering", "verified")
    return order_id


def let_go(here: Street, since: float, devices: Collection[str] = DEVICES) -> bool:
    """Whether the last thing that happened to each device is that it was let go."""
    effects = {e["device"]: e for e in here.log() if "effect" in e}
    return all(
        (effects[device]["at"] >= since and effects[device]["effect"] != "set")
        or effects[device].get("enabled") == 0
        for device in devices
    )  # fmt: skip


def sent_after(here: Street, since: float) -> list[dict[str, Any]]:
    """Whatever would put a device under a setpoint."""
    return [
        entry for entry in here.log()
        if entry["at"] > since and entry.get("effect") == "set" and entry.get("enabled") != 0
    ]  # fmt: skip


def test_a_stopped_order_lets_devices_go_and_does_not_come_back_after_a_kill(
    tmp_path: Path,
) -> None:
    with street(tmp_path) as here:
        gateway = here.lab.start()
        order_id = running_order(here)
        began = time.time()
        answer = post(here, "org_buyer", f"/v1/orders/{order_id}/stop", {"reason": "enough"})
        assert answer.status_code == 200
        assert answer.json()["stopped"]["by"] == "org_buyer"
        gateway.kill()
        killed = time.time()
        gateway = here.lab.start()
        try:
            wait_for(lambda: let_go(here, began), seconds=20, what="both devices let go")
            time.sleep(3.0)  # two periods and a lease: time enough to come back in
            assert sent_after(here, killed) == []
            assert here.order(order_id)["state"] == "stopped"
            again = post(here, "org_buyer", f"/v1/orders/{order_id}/stop", {})
            assert again.status_code == 200
            assert again.json()["stopped"] is None
            windows = here.order(order_id)["windows"]
            stopped_at = answer.json()["stopped"]["at"]
            later = [w for w in windows if w["period"]["start"] >= stopped_at]
            assert later
            assert all(w["instructed_kw"] == 0.0 for w in later)
            assert any(w["instructed_kw"] > 0.0 for w in windows)
            here.await_state(order_id, "settled", seconds=60)
            [line, *_] = here.order(order_id)["lines"]
            assert line["order_id"] == order_id
            kinds = [record["fact"]["kind"] for record in here.facts(order_id)]
            assert kinds.count("OrderStopped") == 1
        finally:
            assert gateway.stop() == 0


def test_an_emergency_stop_answers_when_devices_are_let_go_and_outlives_a_kill(
    tmp_path: Path,
) -> None:
    with street(tmp_path) as here:
        gateway = here.lab.start()
        order_id = running_order(here)
        began = time.time()
        body = {"scope": {"kind": "feeder", "id": "F-114"}, "reason": "smoke"}
        answer = post(here, "org_operator", "/v1/emergency-stop", body)
        answered = time.time()
        gateway.kill()
        assert answer.status_code == 200
        report = answer.json()
        assert {each["device_id"] for each in report["outcomes"]} == set(DEVICES)
        assert {each["outcome"] for each in report["outcomes"]} == {"applied"}
        assert report["orders"] == [order_id]
        slowest = max(each["latency_s"] for each in report["outcomes"])
        assert 0 < slowest <= report["latency_s"] <= answered - began
        assert let_go(here, began, ["bat-1", "ev-1"])
        # A VEN has agreed by then; its firmware acts on that in a moment, with the gateway dead.
        wait_for(lambda: let_go(here, began), seconds=2, what="the site let go")
        gateway = here.lab.start()
        try:
            time.sleep(3.0)  # time enough to come back in
            assert sent_after(here, answered) == []
            assert here.order(order_id)["state"] in {"stopped", "settled"}
            found = here.lab.client("org_operator").get(
                "/v1/journal", stream=report["emergency_id"]
            )
            kinds = [record["fact"]["kind"] for record in found]
            assert kinds == ["EmergencyStopped", "EmergencyAnswered"]
        finally:
            assert gateway.stop() == 0


def test_a_seller_stops_its_devices_and_not_the_order(tmp_path: Path) -> None:
    with street(tmp_path) as here:
        gateway = here.lab.start()
        try:
            order_id = running_order(here)
            began = time.time()
            body = {
                "scope": {"kind": "all"}, "meaning": "zero", "reason": "maintenance",
                "devices": {"bat-1": "release"},
            }  # fmt: skip
            report = post(here, "org_seller", "/v1/emergency-stop", body).json()
            meanings = {each["device_id"]: each["meaning"] for each in report["outcomes"]}
            assert meanings == {**dict.fromkeys(DEVICES, "release"), "ev-1": "zero"}
            assert {each["outcome"] for each in report["outcomes"]} == {"applied"}
            assert report["orders"] == []
            held = [e for e in here.log() if e["at"] >= began and e["device"] == "ev-1"]
            assert any(e.get("effect") == "set" and e.get("power_w") == 0.0 for e in held), held
            time.sleep(2.0)
            assert [e for e in sent_after(here, began) if e["device"] == "bat-1"] == []
            assert here.lab.client("org_operator").get("/v1/flags") == []
            assert here.order(order_id)["state"] in {"delivering", "verified"}
        finally:
            gateway.stop()
