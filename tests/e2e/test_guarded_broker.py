"""One order, from the API to a charger, through a broker that keeps our access rules."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from firmware_sim.servers.mqtt import MqttDevice
from tests.harness.access import GATEWAY, KINDS, PROFILE, Guarded, guarded, password_of
from tests.harness.lab import HOST, Lab, contract, next_period, wait_for

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]
ORG, DEVICE = "org_seller", "ev-1"
SPEED, MINUTES = 120.0, 5


@contextmanager
def plugged_in(broker: Guarded) -> Iterator[list[dict[str, Any]]]:
    """A charger in a thread of its own; what it wrote down."""
    log: list[dict[str, Any]] = []
    loop, done = asyncio.new_event_loop(), asyncio.Event()

    async def live() -> None:
        device = MqttDevice(DEVICE, ORG, boot=1, log=lambda entry: log.append(dict(entry)))
        login = (DEVICE, password_of(broker.out, DEVICE))
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(device.run(HOST, broker.device_port, *login)),
                tasks.create_task(measure(device)),
            ]
            await done.wait()
            for task in running:
                task.cancel()

    thread = threading.Thread(target=lambda: loop.run_until_complete(live()))
    thread.start()
    try:
        yield log
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(20)
        loop.close()


async def measure(device: MqttDevice) -> None:
    sequence, last = 0, time.time()
    while True:
        await asyncio.sleep(0.2)
        limit, now = device.commanded_kw(), time.time()
        power_w = -6600.0 if limit is None else limit * 1000.0
        device.report([sequence, int(last * 1e6), now - last, power_w, power_w, None, True])
        sequence, last = sequence + 1, now


@pytest.mark.parametrize("kind", KINDS)
def test_an_order_reaches_its_device_by_these_rules(tmp_path: Path, kind: str) -> None:
    with guarded(tmp_path, kind, [DEVICE], organisation=ORG) as broker:
        password = tmp_path / "mqtt-password"
        password.write_text(password_of(broker.out, GATEWAY))
        lab = Lab(tmp_path, datetime(2017, 7, 20, 22, 0, tzinfo=UTC), SPEED, MINUTES)
        lab.sections = {
            "mqtt": {
                "port": broker.gateway_port, "tls": False, "username": GATEWAY,
                "password_file": str(password),
                "devices": [{"device_id": DEVICE, "organisation": ORG, "profile": PROFILE}],
            },
        }  # fmt: skip
        lab.write_settings()
        service = lab.start()
        try:
            with plugged_in(broker) as log:
                drive(lab, log)
        finally:
            lab.close()
            assert service.stop() == 0, service.tail()


def drive(lab: Lab, log: list[dict[str, Any]]) -> None:
    operator = lab.client("org_operator")
    wait_for(
        lambda: all(row["newest"] for row in operator.get("/v1/devices")),
        seconds=30, what="telemetry", every_s=0.1,
    )  # fmt: skip
    start = next_period(lab.market_now(), MINUTES)
    start = next_period(start.replace(second=1), MINUTES)  # the one after: 2.5 to 5 s from now
    window = {
        "start": start.isoformat(),
        "end": next_period(start.replace(second=1), MINUTES).isoformat(),
    }
    asset = {
        "id": "ast-ev-1", "feeder": "F-114", "technology": "any", "devices": [DEVICE],
        "meter": DEVICE, "measurement_point": "device", "up_kw": 5.0,
    }  # fmt: skip
    need = contract(lab, [asset], kw=3.0, window=window, baseline="zero")
    order = {"need_id": need, "kw": 3.0, "interval": window}
    made = lab.client("org_buyer").submit_order(order, key="one")["id"]

    def kinds() -> list[str]:
        return [
            each["fact"]["kind"] for each in lab.client("org_buyer").get(f"/v1/orders/{made}/facts")
        ]

    wait_for(lambda: "SetpointsApplied" in kinds(), seconds=30, what="the setpoint", every_s=0.1)
    assert [one["effect"] for one in log if "effect" in one][:1] == ["set"]
