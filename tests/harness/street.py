"""A lab with a battery behind Modbus, a charger behind MQTT, a site behind OpenADR and one
contract over some of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.harness import unwilling
from tests.harness.lab import Lab, contract, free_port, mosquitto, next_period, wait_for
from tests.harness.preloaded import PreloadedChild

SPEED = 120.0
MINUTES = 5
EVERY_S = 0.1
"""Wall seconds between two questions to the API: many runs share the machine."""
LEASE_S = 600.0
DEVICES = ("bat-1", "ev-1", "site-1")
UNWILLING = (*DEVICES, unwilling.SHY, unwilling.MUTE)
"""Those of a street whose devices do not do as they are told."""
ORDER_KW = 8.0
REPORT_S = 1.0
"""Wall seconds between two readings of the battery and of the site; the charger's come faster."""


class Street:
    """One run: its lab, its devices' log, its order."""

    def __init__(
        self, folder: Path, ports: dict[str, int], *, speed: float = SPEED,
        lease_s: float = LEASE_S, devices: Sequence[str] = DEVICES, rebound_s: float = 3600.0,
    ) -> None:  # fmt: skip
        """`ports`: `broker`, `vtn` and that of each battery; the contract is over `devices`."""
        self.folder = folder
        self.devices = devices
        self.lab = Lab(folder, datetime(2017, 7, 20, 22, 0, tzinfo=UTC), speed, MINUTES)
        self.lab.wall_epoch = time.time()
        self.lab.sections = _sections(ports, telemetry_s=REPORT_S * speed, lease_s=lease_s)
        self.lab.sections["observe"]["rebound_s"] = rebound_s
        self.lab.write_settings()
        self.window: dict[str, str] = {}

    def assets(self) -> list[dict[str, Any]]:
        return [
            {"id": f"ast-{device}", "feeder": "F-114", "technology": "any", "devices": [device],
             "meter": device, "measurement_point": "device", "up_kw": 5.0}
            for device in self.devices
        ]  # fmt: skip

    def next_window(self, *, lead_s: float, periods: int) -> dict[str, str]:
        """Settlement periods from the next one that starts in `lead_s` wall seconds."""
        at = self.lab.market_now() + timedelta(seconds=lead_s * self.lab.speed)
        start = next_period(at, MINUTES)
        end = start + timedelta(minutes=MINUTES * periods)
        return {"start": start.isoformat(), "end": end.isoformat()}

    def sign_contract(self, *, lead_s: float = 12.0, periods: int = 1) -> str:
        """A contract over the next window; the order will be for all of it."""
        self.window = self.next_window(lead_s=lead_s, periods=periods)
        return contract(self.lab, self.assets(), kw=ORDER_KW, window=self.window, baseline="zero")

    def left_s(self, edge: str) -> float:
        """Wall seconds until the window's `start` or `end`."""
        left = datetime.fromisoformat(self.window[edge]) - self.lab.market_now()
        return left.total_seconds() / self.lab.speed

    def await_telemetry(self, seconds: float = 60.0) -> None:
        operator = self.lab.client("org_operator")

        def all_fresh() -> bool:
            rows = operator.get("/v1/devices")
            return all(row["newest"] and not row["stale"] for row in rows)

        wait_for(all_fresh, seconds=seconds, what="telemetry", every_s=EVERY_S)

    def submit(self, need: str) -> str | None:
        """Submit the order; None when the service died before it answered."""
        order = {"need_id": need, "kw": ORDER_KW, "interval": self.window}
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

        what = f"{order_id} to be {states}"
        found: str = wait_for(reached, seconds=seconds, what=what, every_s=EVERY_S)
        return found

    def await_settled(self, order_id: str) -> None:
        """Wait for the window to end, however long it is, and then for the statement."""
        time.sleep(max(0.0, self.left_s("end")))
        self.await_state(order_id, "settled", seconds=60.0)

    def log(self) -> list[dict[str, Any]]:
        """What the devices wrote down."""
        return _lines(self.folder / "devices.jsonl")

    def gateway_log(self) -> list[dict[str, Any]]:
        """What every gateway of this run logged, the dead ones too."""
        return _lines(self.folder / "gateway.log")


def _sections(ports: dict[str, int], *, telemetry_s: float, lease_s: float) -> dict[str, Any]:
    battery = {
        "min_kw": -5.0, "max_kw": 5.0, "lease": "revert_timer", "lease_s": lease_s,
        "capacity_kwh": 6.4, "telemetry_s": telemetry_s,
    }  # fmt: skip
    charger = {
        "min_kw": -7.0, "max_kw": 0.0, "control": "limit", "lease": "time_to_live",
        "lease_s": lease_s, "telemetry_s": telemetry_s,
    }  # fmt: skip
    site = {
        "min_kw": -20.0, "max_kw": 0.0, "lease": "event_end", "telemetry_s": telemetry_s,
    }  # fmt: skip
    return {
        # Every reading of a window is in by then, so that no window closes twice.
        "observe": {"grace_s": 3.0 * telemetry_s},
        "mqtt": {"port": ports["broker"], "tls": False, "devices": [
            {"device_id": "ev-1", "organisation": "org_seller", "profile": charger}]},
        "modbus": {"devices": [
            {"device_id": device, "host": "127.0.0.1", "port": ports[device], "unit": 1,
             "role": "battery", "serial": device.replace("bat-", "SN"), "profile": battery}
            for device in ports if device.startswith("bat-")]},
        "openadr": {"port": ports["vtn"], "poll_s": 0.5, "vens": [
            {"device_id": "site-1", "ven_name": "site-1", "profile": site}]},
    }  # fmt: skip


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@contextmanager
def street(folder: Path, **options: Any) -> Iterator[Street]:
    """Broker and devices up; the gateway is for the test to start, kill and start again.

    With `devices=UNWILLING` they do not do as they are told.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vtn_port = free_port(lasting=True)
    with mosquitto(folder) as broker_port:
        ready = folder / "devices.ready.json"
        devices = PreloadedChild(
            "devices",
            ["tests.harness.devices", "--broker-port", str(broker_port),
             "--vtn-port", str(vtn_port), "--report-s", str(REPORT_S),
             "--log", str(folder / "devices.jsonl"), "--ready-file", str(ready),
             *(["--unwilling"] if options.get("devices") == UNWILLING else [])],
            folder,
        )  # fmt: skip
        here = None
        try:
            modbus_ports = devices.wait_ready(60)["modbus_ports"]
            ports = {"broker": broker_port, "vtn": vtn_port, **modbus_ports}
            here = Street(folder, ports, **options)
            yield here
        finally:
            devices.stop()
            if here is not None:
                here.lab.close()
