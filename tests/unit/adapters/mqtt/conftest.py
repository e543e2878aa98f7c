"""A real Mosquitto and the embedded broker, each in MQTT's versions that it speaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.mqtt import Mosquitto, embedded

Broker = tuple[int, int]


@pytest.fixture(params=["mosquitto-5", "mosquitto-3.1.1", "embedded"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Port and protocol level of a running broker."""
    if request.param == "embedded":
        with embedded(tmp_path) as port:
            yield port, 4
        return
    with Mosquitto(tmp_path) as running:
        yield running.port, 5 if request.param == "mosquitto-5" else 4
