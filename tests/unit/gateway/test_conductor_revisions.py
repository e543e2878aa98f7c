"""Which of several plans for one device goes on the wire, with a driver that only listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from gateway.stages.dispatch.conductor import Conductor
from gateway.stages.dispatch.driver import Answered, Driver
from gateway.stages.dispatch.held import Held
from gateway.store.setpoints import SetpointState
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.units import Kw

START = datetime(2026, 7, 20, 22, 0, tzinfo=UTC)


class Clock:
    """Stands still at the start of the order."""

    def now(self) -> datetime:
        return START

    def monotonic(self) -> float:
        return 0.0

    def wall_seconds(self, market_seconds: float) -> float:
        return market_seconds

    async def sleep_until(self, at: datetime) -> None:
        raise AssertionError(at)


class Listener:
    """Notes what it was told to send, and in place of what."""

    def __init__(self, *quick: str) -> None:
        """`quick` devices answer at once, the others when `answer` is set."""
        self._quick = quick
        self.sent: list[tuple[list[str], list[str]]] = []
        self.told = asyncio.Event()
        self.answer = asyncio.Event()

    async def send(
        self, group: Sequence[Held], answered: Answered, superseded: Sequence[Held] = ()
    ) -> None:
        self.sent.append(
            (
                sorted(held.setpoint.id for held in group),
                sorted(held.setpoint.id for held in superseded),
            )
        )
        for held in group:
            held.state = SetpointState.APPLIED
            held.retry_at = 1e9
        self.told.set()
        answered([held for held in group if held.setpoint.device_id in self._quick])
        await self.answer.wait()


def profile(device: str) -> DeviceProfile:
    return DeviceProfile(
        device_id=device, protocol="mqtt", min_kw=Kw(-7.0), max_kw=Kw(0.0),
        lease=LeaseKind.TIME_TO_LIVE, lease_s=600.0,
    )  # fmt: skip


def setpoint(device: str, revision: int, order: str = "ord_1") -> Setpoint:
    return Setpoint(
        id=f"{device}-{order}-r{revision}", order_id=order, revision=revision, device_id=device,
        power_kw=Kw(-2.0), valid_from=START, valid_until=START + timedelta(hours=1), lease_s=600.0,
    )  # fmt: skip


async def sent(conductor: Conductor, driver: Listener, times: int) -> None:
    """Let a conductor work until it has sent so many groups."""
    task = asyncio.create_task(conductor.run())
    while len(driver.sent) < times:
        driver.told.clear()
        await driver.told.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def new(driver: Listener, *devices: str) -> Conductor:
    profiles = {device: profile(device) for device in devices}
    return Conductor(cast("Driver", driver), profiles, Clock())


async def test_of_two_plans_due_at_once_only_the_newest_is_sent() -> None:
    """A restart finds both of them planned: neither was sent before the process ended."""
    driver = Listener()
    conductor = new(driver, "a", "b")
    conductor.planned([setpoint("a", 1), setpoint("a", 2), setpoint("a", 3), setpoint("b", 1)])
    await sent(conductor, driver, 1)
    assert driver.sent == [(["a-ord_1-r3", "b-ord_1-r1"], ["a-ord_1-r1", "a-ord_1-r2"])]
    assert {s.id for s in conductor.open_setpoints()} == {"a-ord_1-r3", "b-ord_1-r1"}


async def test_a_revision_waits_until_the_plan_before_it_is_answered() -> None:
    """The device is still being asked: a second setpoint beside it could arrive first."""
    driver = Listener()
    conductor = new(driver, "a")
    conductor.planned([setpoint("a", 1)])
    task = asyncio.create_task(conductor.run())
    await driver.told.wait()
    conductor.planned([setpoint("a", 2)])
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(driver.sent) == 1
    driver.answer.set()
    while len(driver.sent) < 2:
        driver.told.clear()
        await driver.told.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert driver.sent[1] == (["a-ord_1-r2"], ["a-ord_1-r1"])


async def test_who_has_answered_does_not_wait_for_the_slowest_of_its_group() -> None:
    driver = Listener("quick")
    conductor = new(driver, "quick", "slow")
    conductor.planned([setpoint("quick", 1), setpoint("slow", 1)])
    task = asyncio.create_task(conductor.run())
    await driver.told.wait()
    driver.told.clear()
    conductor.planned([setpoint("quick", 2), setpoint("slow", 2)])
    await driver.told.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert driver.sent[1:] == [(["quick-ord_1-r2"], ["quick-ord_1-r1"])]


async def test_a_revision_stands_in_for_its_own_order_alone() -> None:
    driver = Listener()
    conductor = new(driver, "a")
    conductor.planned([setpoint("a", 1, "ord_1"), setpoint("a", 2, "ord_2")])
    await sent(conductor, driver, 1)
    assert driver.sent == [(["a-ord_1-r1", "a-ord_2-r2"], [])]
