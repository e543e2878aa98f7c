"""Which devices are let go when setpoints are over, with a driver that only listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

from gateway.stages.dispatch.conductor import Conductor
from gateway.stages.dispatch.driver import Driver
from gateway.stages.dispatch.held import Held
from gateway.store.setpoints import SetpointRow, SetpointState
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Setpoint
from marketplace_core.units import Kw
from tests.unit.gateway.test_conductor_revisions import START as NOW
from tests.unit.gateway.test_conductor_revisions import Clock

MINUTE = timedelta(minutes=1)


class Listener:
    """Notes which setpoints end, and whether their device is released."""

    def __init__(self) -> None:
        self.ended: dict[str, bool] = {}
        self.told = asyncio.Event()

    async def end(self, held: Held, *, release: bool) -> None:
        self.ended[held.setpoint.id] = release
        self.told.set()

    async def resolve(self, group: Sequence[Held], _answered: Any) -> None:
        for held in group:
            held.retry_at = 1e9


def row(name: str, device: str, start: int, state: SetpointState) -> SetpointRow:
    """A setpoint of ten minutes that begins so many minutes from now."""
    setpoint = Setpoint(
        id=name, order_id=f"ord_{name}", revision=0, device_id=device, power_kw=Kw(-2.0),
        valid_from=NOW + start * MINUTE, valid_until=NOW + (start + 10) * MINUTE, lease_s=600.0,
    )  # fmt: skip
    return SetpointRow(setpoint=setpoint, state=state, outcome=None)


async def ended(*rows: SetpointRow) -> dict[str, bool]:
    driver = Listener()
    profiles = {
        each.setpoint.device_id: DeviceProfile(
            device_id=each.setpoint.device_id, protocol="openadr", min_kw=Kw(-7.0), max_kw=Kw(0.0),
            lease=LeaseKind.EVENT_END,
        )
        for each in rows
    }  # fmt: skip
    conductor = Conductor(cast("Driver", driver), profiles, Clock())
    conductor.restore(rows)
    task = asyncio.create_task(conductor.run())
    over = [each.setpoint.id for each in rows if each.setpoint.valid_until <= NOW]
    while len(driver.ended) < len(over):
        driver.told.clear()
        await driver.told.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    left = {each.id for each in conductor.open_setpoints()}
    assert left == {each.setpoint.id for each in rows} - set(over)
    return driver.ended


async def test_a_device_is_let_go_when_its_setpoint_is_over() -> None:
    over = row("one", "a", -10, SetpointState.ISSUED)
    other = row("two", "b", -5, SetpointState.ISSUED)
    assert await ended(over, other) == {"one": True}


async def test_a_device_that_something_newer_was_sent_to_is_kept() -> None:
    over = row("one", "a", -10, SetpointState.ISSUED)
    newer = row("two", "a", -5, SetpointState.ISSUED)
    assert await ended(over, newer) == {"one": False}


async def test_what_is_only_planned_keeps_nothing() -> None:
    over = row("one", "a", -10, SetpointState.ISSUED)
    planned = row("two", "a", 5, SetpointState.PLANNED)
    assert await ended(over, planned) == {"one": True}


async def test_two_that_end_at_once_do_not_keep_the_device_for_each_other() -> None:
    one = row("one", "a", -10, SetpointState.ISSUED)
    two = row("two", "a", -10, SetpointState.ISSUED)
    assert await ended(one, two) == {"one": True, "two": True}
