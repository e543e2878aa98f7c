from __future__ import annotations

import pytest

from firmware_sim.planning import Planned, Request, plan
from tests.harness.days import DATA


@pytest.fixture(scope="session")
def day() -> Planned:
    """The whole day, as the demonstration plays it."""
    return plan(Request(seed=1), DATA)


@pytest.fixture(scope="session")
def small_day() -> Planned:
    """A few devices of every kind."""
    return plan(Request(seed=1, homes=3, chargers=4, sites=1), DATA)
