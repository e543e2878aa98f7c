"""An order that a Sparkplug battery delivers: from its birth to the statement, real processes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from firmware_sim.devices.battery import BatterySpec
from firmware_sim.servers.sparkplug import SparkplugNode
from firmware_sim.servers.sparkplug_unit import SparkplugBattery
from tests.harness.lab import HOST, Lab, contract, mosquitto, next_period, wait_for

pytestmark = pytest.mark.process
SPEED, MINUTES, STEP_S = 60.0, 5, 0.25
ORDER_KW = 3.0


def sections(port: int) -> dict[str, Any]:
    device = {
        "device_id": "bess-1", "organisation": "org_seller", "dialect": "sparkplug",
        "group": "plant", "edge_node": "node-1", "sparkplug_device": "bess",
        "metrics": {
            "power": {"metric": "Inverter/Power", "scale": -0.001},
            "soc": {"metric": "Battery/Stored"},
            "setpoint": {"metric": "Control/Setpoint", "scale": -0.001},
            "enable": {"metric": "Control/Enable"},
            "lease": {"metric": "Control/Lease"},
            "heartbeat": {"metric": "Control/Heartbeat"},
        },
        "profile": {"min_kw": -5.0, "max_kw": 5.0, "lease": "time_to_live", "lease_s": 240.0,
                    "capacity_kwh": 60.0, "telemetry_s": STEP_S * SPEED},
    }  # fmt: skip
    return {
        "observe": {"grace_s": 60.0, "rebound_s": 300.0},
        "mqtt": {"port": port, "tls": False, "devices": [device]},
    }


@contextmanager
def plant(port: int) -> Iterator[SparkplugBattery]:
    """The edge node and its battery, on a loop of their own; reads the wall's clock."""
    log: list[Any] = []
    battery = SparkplugBattery(
        spec=BatterySpec(capacity_kwh=60.0, ramp_kw_per_s=50.0), log=log.append
    )
    battery.values["Battery/Stored"] = 50.0
    node = SparkplugNode("plant", "node-1", "bess", battery, primary_host="flexway")
    over = threading.Event()

    async def play() -> None:
        running = asyncio.ensure_future(node.run(HOST, port))
        while not over.is_set():
            await asyncio.sleep(STEP_S)
            if names := battery.step(datetime.now(UTC)):
                node.report(*names)
        running.cancel()
        await asyncio.wait([running])

    thread = threading.Thread(target=asyncio.run, args=(play(),))
    thread.start()
    try:
        yield battery
    finally:
        over.set()
        thread.join(10)


def test_an_order_is_delivered_by_a_sparkplug_battery(tmp_path: Path) -> None:
    lab = Lab(tmp_path, datetime(2017, 7, 20, 22, 0, tzinfo=UTC), SPEED, MINUTES)
    with mosquitto(tmp_path) as port, plant(port) as battery:
        lab.wall_epoch = time.time()
        lab.sections = sections(port)
        lab.write_settings()
        gateway = lab.start()
        try:
            settled = order(lab)
            facts = lab.client("org_buyer").get(f"/v1/orders/{settled}/facts")
            lines = lab.client("org_seller").get(f"/v1/orders/{settled}/statement")
        finally:
            assert gateway.stop() == 0, gateway.tail()
            lab.close()
    assert battery.commanded_kw() is None  # released at the end
    found = {each["fact"]["kind"]: each["fact"] for each in facts}
    (applied,) = found["SetpointsApplied"]["outcomes"]
    assert (applied["read_back_kw"], applied["lease_remaining_s"]) == (ORDER_KW, 240.0)
    verified = found["DeliveryVerified"]
    assert verified["coverage"] > 0.9
    assert verified["measured_kw"] > ORDER_KW / 2
    assert sum(Decimal(str(line["amount"])) for line in lines) > 0


def order(lab: Lab) -> str:
    """Order what the contract gives, and wait for its statement."""
    operator, buyer = lab.client("org_operator"), lab.client("org_buyer")
    wait_for(
        lambda: all(row["newest"] and not row["stale"] for row in operator.get("/v1/devices")),
        seconds=30, what="telemetry",
    )  # fmt: skip
    start = next_period(lab.market_now() + timedelta(seconds=4 * SPEED), MINUTES)
    window = {"start": start.isoformat(), "end": (start + timedelta(minutes=MINUTES)).isoformat()}
    asset = {"id": "ast-bess", "feeder": "F-114", "technology": "any", "devices": ["bess-1"],
             "meter": "bess-1", "measurement_point": "device", "up_kw": 5.0}  # fmt: skip
    need = contract(lab, [asset], kw=ORDER_KW, window=window, baseline="zero")
    wanted = {"need_id": need, "kw": ORDER_KW, "interval": window}
    identifier: str = buyer.submit_order(wanted, key="the-order")["id"]
    wait_for(
        lambda: buyer.get(f"/v1/orders/{identifier}")["state"] == "settled",
        seconds=60, what="the statement", every_s=0.1,
    )  # fmt: skip
    return identifier
