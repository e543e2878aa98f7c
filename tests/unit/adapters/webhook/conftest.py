from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from firmware_sim.servers.webhook import Aggregator
from tests.harness.webhook import SECRET, yes


@pytest.fixture
async def aggregator() -> AsyncIterator[Aggregator]:
    async with Aggregator(yes, secrets=[SECRET]) as server:
        yield server
