"""A device that nothing but the gateway brings back: killed, restarted, stopped."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.harness.bench import Battery
from tests.harness.lab import wait_for
from tests.harness.modbus_thread import served
from tests.harness.street import EVERY_S, Street, street

pytestmark = [pytest.mark.process]
FALLBACK_KW = -1.0


def guarded(here: Street, port: int) -> None:
    """`bat-1` is a battery whose timer stands still: its profile says watchdog and a fallback."""
    (device,) = here.lab.sections["modbus"]["devices"]
    device |= {"port": port, "serial": "S1"}
    device["profile"] |= {"lease": "watchdog", "fallback_kw": FALLBACK_KW, "lease_s": 120.0}
    device["profile"]["telemetry_s"] = 0.2 * here.lab.speed
    here.lab.write_settings()


def helpless() -> Battery:
    unit = Battery(time.monotonic)
    unit.own_kw = 0.0
    unit.faults.no_timer = True
    return unit


def commanded(unit: Battery) -> float | None:
    return unit._get(704, "WSet") / 1000.0 if unit._get(704, "WSetEna") == 1 else None


def test_after_a_kill_the_next_start_returns_the_device_to_its_fallback(tmp_path: Path) -> None:
    unit = helpless()
    with served({1: unit}) as port, street(tmp_path, devices=("bat-1", "ev-1")) as here:
        guarded(here, port)
        gateway = here.lab.start()
        try:
            here.await_telemetry()
            assert here.submit(here.sign_contract(periods=2, lead_s=8.0)) is not None
            power = wait_for(lambda: commanded(unit), seconds=40, what="a setpoint in force")
            operator = here.lab.client("org_operator")
            wait_for(
                lambda: operator.get("/v1/devices/bat-1")["lease_seconds_left"],
                seconds=10, what="seconds left", every_s=EVERY_S,
            )  # fmt: skip
            shown = operator.get("/v1/devices/bat-1")["lease"]
            assert (shown["kind"], shown["ended_by"]) == ("watchdog", "gateway")
            assert 0 < shown["seconds_left"] <= 120.0
            assert shown["then"] == "its fallback of -1 kW"
        finally:
            gateway.kill()
        time.sleep(max(0.0, here.left_s("end")) + 0.5)  # past the lease, and past the order
        assert commanded(unit) == power  # nobody else ends it: that is why the next start has to
        again = here.lab.start()
        try:
            wait_for(
                lambda: commanded(unit) == FALLBACK_KW, seconds=30, what="the fallback",
                every_s=EVERY_S,
            )  # fmt: skip
        finally:
            assert again.stop() == 0
        assert commanded(unit) == FALLBACK_KW


@pytest.mark.timeout(240)
def test_a_clean_stop_returns_the_device_and_the_next_start_goes_on(tmp_path: Path) -> None:
    unit = helpless()
    # Slow enough for the order to outlast two starts of the service on a busy machine.
    here_at = street(tmp_path, devices=("bat-1", "ev-1"), speed=30.0)
    with served({1: unit}) as port, here_at as here:
        guarded(here, port)
        gateway = here.lab.start()
        here.await_telemetry()
        order = here.submit(here.sign_contract(periods=12, lead_s=5.0))
        assert order is not None
        power = wait_for(lambda: commanded(unit), seconds=60, what="a setpoint in force")
        assert gateway.stop() == 0
        assert here.left_s("end") > 2.0
        assert commanded(unit) == FALLBACK_KW
        assert any(entry["event"] == "device_let_go" for entry in here.gateway_log())
        again = here.lab.start()
        try:
            wait_for(
                lambda: commanded(unit) == power, seconds=60, what="the order going on",
                every_s=EVERY_S,
            )  # fmt: skip
        finally:
            again.kill()
