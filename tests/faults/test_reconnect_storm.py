"""All devices lose their connection at once: they come back, and commands go on meanwhile.

The same at 10,000 devices: `make bench ARGS="reconnect_10k"`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.lab import mosquitto
from tests.harness.storm import PROBES, storm

DEVICES = 200
pytestmark = pytest.mark.process


async def test_everybody_comes_back_and_no_setpoint_is_lost_meanwhile(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as port:
        found = await storm(tmp_path, port, DEVICES, storm_at=9.0, spread_s=1.0, interval_s=5.0)
    assert found.devices == DEVICES
    assert found.back_s < 60.0, "the promise at fifty times as many"
    assert len(found.before) >= PROBES
    assert len(found.during) >= PROBES, "every setpoint was acknowledged, also in the storm"
