"""Silence is safe: when the gateway is killed and stays dead, devices fall back on their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness.lab import wait_for
from tests.harness.street import LEASE_S, SPEED, street

LEASED = ("bat-1", "ev-1")
"""Devices that somebody has to refresh: an OpenADR event ends by itself."""

pytestmark = [pytest.mark.process]


def test_devices_fall_back_when_the_gateway_stays_dead(tmp_path: Path) -> None:
    with street(tmp_path, devices=LEASED) as here:
        gateway = here.lab.start()
        try:
            here.await_telemetry()
            # Long enough for the lease to end well before the order does.
            order_id = here.submit(here.sign_contract(periods=6, lead_s=4.0))
            assert order_id is not None

            def in_force() -> bool:
                sets = [e for e in here.log() if e.get("effect") == "set"]
                return {entry["device"] for entry in sets} == set(LEASED)

            wait_for(in_force, seconds=20, what="setpoints in force")
        finally:
            gateway.kill()
        killed_at = here.log()[-1]["at"]

        def fallen_back() -> bool:
            ends = {e["device"]: e["at"] for e in here.log()
                    if e.get("effect") in {"reverted", "fallback"}}  # fmt: skip
            return set(ends) == set(LEASED)

        # The Modbus timer counts whole seconds, so one more than the lease.
        wait_for(fallen_back, seconds=LEASE_S / SPEED + 5, what="both devices at their fallback")
        log = here.log()
        writes = [e for e in log if e["device"] == "bat-1" and e.get("received") == "write"]
        assert all(entry["at"] <= killed_at + 1 for entry in writes)


def test_lease_is_refreshed_while_the_gateway_lives(tmp_path: Path) -> None:
    with street(tmp_path, devices=LEASED) as here:
        gateway = here.lab.start()
        try:
            here.await_telemetry()
            order_id = here.submit(here.sign_contract(periods=4, lead_s=4.0))
            assert order_id is not None
            here.await_state(order_id, "settled", seconds=60)
        finally:
            assert gateway.stop() == 0
        log = here.log()
        logged = [json.loads(line) for line in gateway.tail(1000).splitlines()]
        about_devices = [e for e in logged if e["event"] in {"setpoints_issued", "device_released"}]
        assert {e["order_id"] for e in about_devices} == {order_id}
        released = [e for e in log if e["device"] == "bat-1" and e.get("enabled") == 0]
        assert len(released) == 1
        # 20 market minutes outlast the lease of 10: without refreshes it would have reverted.
        in_force = next(e["at"] for e in log if e.get("enabled") == 1)
        assert (released[0]["at"] - in_force) * SPEED > LEASE_S
        # At the end of the order a device may end the setpoint itself, before the release comes.
        early = released[0]["at"] - 1.0
        assert not [
            e for e in log if e.get("effect") in {"reverted", "fallback"} and e["at"] < early
        ]
