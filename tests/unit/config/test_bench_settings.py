"""The benchmarks' service starts: its settings break no rule."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from config.loading import read_settings
from tests.bench.bench_dispatch import device_settings
from tests.harness.lab import Lab

DEVICES = 1_000


def test_a_thousand_devices_of_the_dispatch_benchmark(tmp_path: Path) -> None:
    lab = Lab(tmp_path, datetime.now(UTC), speed=1.0)
    lab.sections["mqtt"] = {"tls": False, "devices": device_settings(DEVICES)}
    found = read_settings(lab.write_settings(), {})
    assert list(found.findings) == []
    assert found.settings is not None
    assert len(found.settings.mqtt.devices) == DEVICES
