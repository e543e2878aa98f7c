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


def held(clock: Clock, lease: LeaseKind = LeaseKind.TIME_TO_LIVE) -> Held:
    profile = DeviceProfile(
        device_id="ev-1", protocol="mqtt", min_kw=Kw(-7.0), max_kw=Kw(0.0),
        lease=lease, lease_s=600.0,
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
def test_refreshes_keep_their_pace_and_stop_before_the_end(speed: float) -> None:
    clock = Clock(speed)
    one = held(clock)
    refreshed = []
    while one.retry_at < VALID_S / speed:
        clock.wall = max(clock.wall, one.retry_at)
        refreshed.append(clock.wall * speed)
        one.renew(clock, min(600.0, VALID_S - refreshed[-1]))  # it ends with the setpoint
    assert refreshed == pytest.approx([0.0, 300.0, 600.0, 900.0])
    assert one.retry_at == math.inf


def test_a_lease_as_long_as_the_setpoint_is_looked_after_once() -> None:
    """A device that lost its setpoint meanwhile gets it again at half time."""
    clock = Clock(1.0)
    one = held(clock)
    clock.wall = 600.0
    one.renew(clock, 600.0)
    assert one.retry_at == 900.0
    clock.wall = 900.0
    one.renew(clock, 300.0)
    assert one.retry_at == math.inf


@pytest.mark.parametrize("lease", list(LeaseKind))
def test_every_lease_but_one_that_ends_by_itself_is_refreshed(lease: LeaseKind) -> None:
    ends_by_itself = lease in {LeaseKind.EVENT_END, LeaseKind.NONE}
    assert held(Clock(1.0), lease).refreshed is not ends_by_itself
