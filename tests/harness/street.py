"""A lab with a battery behind Modbus, a charger behind MQTT and one contract over both."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from gateway.children import Child
from tests.harness.lab import Lab, contract, mosquitto, next_period, wait_for

SPEED = 120.0
MINUTES = 5
LEASE_S = 600.0
DEVICES = ("bat-1", "ev-1")


class Street:
    """One run: its lab, its devices' log, its order."""

    def __init__(self, folder: Path, broker_port: int, modbus_port: int) -> None:
        self.folder = folder
        self.lab = Lab(folder, datetime(2017, 7, 20, 22, 0, tzinfo=UTC), SPEED, MINUTES)
        self.lab.wall_epoch = time.time()
        charger = {
            "min_kw": -7.0, "max_kw": 0.0, "control": "limit", "lease": "time_to_live",
            "lease_s": LEASE_S, "telemetry_s": 60.0,
        }  # fmt: skip
        battery = {
            "min_kw": -5.0, "max_kw": 5.0, "lease": "revert_timer", "lease_s": LEASE_S,
            "capacity_kwh": 6.4, "telemetry_s": 30.0,
        }  # fmt: skip
        self.lab.sections = {
            "observe": {"grace_s": 60.0},
            "mqtt": {"port": broker_port, "tls": False, "devices": [
                {"device_id": "ev-1", "organisation": "org_seller", "profile": charger}]},
            "modbus": {"devices": [
                {"device_id": "bat-1", "host": "127.0.0.1", "port": modbus_port, "unit": 1,
                 "role": "battery", "serial": "SN1", "profile": battery}]},
        }  # fmt: skip
        self.lab.write_settings()
        self.window: dict[str, str] = {}

    def sign_contract(self, *, lead_s: float = 12.0, periods: int = 1) -> str:
        """A contract over the next settlement period that starts in `lead_s` wall seconds."""
        start = next_period(self.lab.market_now() + timedelta(seconds=lead_s * SPEED), MINUTES)
        end = start + timedelta(minutes=MINUTES * periods)
        self.window = {"start": start.isoformat(), "end": end.isoformat()}
        assets = [
            {"id": f"ast-{device}", "feeder": "F-114", "technology": "any", "devices": [device],
             "meter": device, "measurement_point": "device", "up_kw": 5.0}
            for device in DEVICES
        ]  # fmt: skip
        return contract(self.lab, assets, kw=8.0, window=self.window, baseline="zero")

    def await_telemetry(self) -> None:
        operator = self.lab.client("org_operator")

        def all_fresh() -> bool:
            rows = operator.get("/v1/devices")
            return all(row["newest"] and not row["stale"] for row in rows)

        wait_for(all_fresh, seconds=15, what="telemetry")

    def submit(self, need: str) -> str | None:
        """Submit the order; None when the service died before it answered."""
        order = {"need_id": need, "kw": 8.0, "interval": self.window}
        try:
            answer = self.lab.client("org_buyer").submit_order(order, key="the-order")
        except httpx.TransportError:
            return None
        identifier: str = answer["id"]
        return identifier

    def submit_span(self, need: str, span: dict[str, str]) -> str:
        """Submit an order over a span of its own."""
        order = {"need_id": need, "kw": 2.0, "interval": span}
        answer = self.lab.client("org_buyer").submit_order(order, key=span["start"])
        identifier: str = answer["id"]
        return identifier

    def order(self, order_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.lab.client("org_buyer").get(f"/v1/orders/{order_id}")
        return found

    def facts(self, order_id: str) -> list[dict[str, Any]]:
        facts: list[dict[str, Any]] = self.lab.client("org_buyer").get(
            f"/v1/orders/{order_id}/facts"
        )
        return facts

    def await_state(self, order_id: str, *states: str, seconds: float = 30.0) -> str:
        def reached() -> str:
            state: str = self.order(order_id)["state"]
            return state if state in states else ""

        found: str = wait_for(reached, seconds=seconds, what=f"{order_id} to be {states}")
        return found

    def log(self) -> list[dict[str, Any]]:
        path = self.folder / "devices.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@contextmanager
def street(folder: Path) -> Iterator[Street]:
    """Broker and devices up; the gateway is for the test to start, kill and start again."""
    folder.mkdir(parents=True, exist_ok=True)
    with mosquitto(folder) as broker_port:
        ready = folder / "devices.ready.json"
        devices = Child(
            "devices",
            ["tests.harness.devices", "--broker-port", str(broker_port), "--log",
             str(folder / "devices.jsonl"), "--ready-file", str(ready)],
            folder,
        )  # fmt: skip
        here = None
        try:
            here = Street(folder, broker_port, devices.wait_ready()["modbus_port"])
            yield here
        finally:
            devices.stop()
            if here is not None:
                here.lab.close()
