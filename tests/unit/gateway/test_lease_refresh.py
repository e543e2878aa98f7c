"""When the lease of a setpoint in force is refreshed, on a clock that the test moves."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from gateway.stages.dispatch.held import Held
from gateway.store.setpoints import SetpointState
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.units import Kw

START = datetime(2026, 7, 20, 22, 0, tzinfo=UTC)
VALID_S = 1200.0


class Clock:
    """Market time and monotonic time, `speed` market seconds to the wall second."""

    def __init__(self, speed: float) -> None:
        self.wall = 0.0
        self._speed = speed

    def now(self) -> datetime:
        return START + timedelta(seconds=self.wall * self._speed)

    def monotonic(self) -> float:
        return self.wall

    def wall_seconds(self, market_seconds: float) -> float:
        return market_seconds / self._speed

    async def sleep_until(self, at: datetime) -> None:
        raise AssertionError(at)


def held(clock: Clock) -> Held:
    profile = DeviceProfile(
        device_id="ev-1", protocol="mqtt", min_kw=Kw(-7.0), max_kw=Kw(0.0),
        lease=LeaseKind.TIME_TO_LIVE, lease_s=600.0,
    )  # fmt: skip
    setpoint = Setpoint(
        id="spt_1", order_id="ord_1", revision=0, device_id="ev-1", power_kw=Kw(-2.0),
        valid_from=START, valid_until=START + timedelta(seconds=VALID_S), lease_s=600.0,
    )  # fmt: skip
    return Held(setpoint, profile, SetpointState.APPLIED, clock.now())


@pytest.mark.parametrize("speed", [1.0, 60.0])
def test_a_lease_is_refreshed_at_half_its_time(speed: float) -> None:
    clock = Clock(speed)
    one = held(clock)
    one.renew(clock, 600.0)
    assert one.lease_ends == pytest.approx(600.0 / speed)
    assert one.retry_at == pytest.approx(300.0 / speed)


@pytest.mark.parametrize("speed", [1.0, 60.0])
def test_a_lease_that_lasts_to_the_end_is_not_refreshed_any_more(speed: float) -> None:
    clock = Clock(speed)
    one = held(clock)
    refreshes = 0
    while one.retry_at < VALID_S / speed:
        clock.wall = max(clock.wall, one.retry_at)
        left = VALID_S - clock.wall * speed
        one.renew(clock, min(600.0, left))  # a device ends its lease with the setpoint
        refreshes += 1
    assert refreshes == 3  # at 0, 300 and 600 s; the last one outlasts the setpoint
    assert one.retry_at == math.inf
