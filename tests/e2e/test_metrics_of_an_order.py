"""One order over real sockets, as the monitoring sees it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.lab import wait_for
from tests.harness.street import street

pytestmark = [pytest.mark.process, pytest.mark.slow]
Series = dict[tuple[str, tuple[str, ...]], float]


def scrape(url: str) -> Series:
    text = httpx.get(f"{url}/metrics").text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_an_order_is_seen_from_its_start_to_its_settlement(tmp_path: Path) -> None:
    with street(tmp_path, devices=("bat-1", "ev-1")) as here:
        gateway = here.lab.start()
        try:
            here.await_telemetry()
            need = here.sign_contract(lead_s=6.0, periods=4)
            order_id = here.submit(need)
            assert order_id is not None
            url = here.lab.url

            def followed() -> Series | None:
                now = scrape(url)
                ratios = [
                    now["flexway_dispatch_compliance_ratio", (protocol,)]
                    for protocol in ("modbus", "mqtt")
                ]
                return now if all(ratio > 0.9 for ratio in ratios) else None

            during = wait_for(followed, seconds=40, what="devices to follow")
            assert during["flexway_orders_running", ()] == 1.0
            assert during["flexway_setpoints_open", ("applied",)] == 2.0
            assert during["flexway_leases_held", ()] == 2.0
            assert during["flexway_lease_seconds_left_min", ()] > 0
            asked = sum(
                during["flexway_dispatch_instructed_watts", (protocol,)]
                for protocol in ("modbus", "mqtt")
            )
            assert asked == pytest.approx(8000.0, rel=0.01)
            here.await_state(order_id, "settled", seconds=60)
            after = scrape(url)
        finally:
            assert gateway.stop() == 0
    assert after["flexway_orders_running", ()] == 0.0
    for state in ("submitted", "awarded", "planned", "settled"):
        assert after["flexway_orders_total", (state,)] == 1.0
    assert after["flexway_journal_root_age_seconds", ()] < 600.0  # market seconds
    assert after["flexway_event_loop_lag_seconds_count", ()] > 0
    assert after["flexway_dead_letters_total", ("settle",)] == 0.0
