"""The emergency lane past devices that are busy, silent, or cannot hold a value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import msgspec
import pytest

from gateway.observability.metrics import Metrics
from gateway.stages.dispatch.conductor import Conductor
from gateway.stages.dispatch.emergency import EmergencyLane
from gateway.store.setpoints import SetpointRow, SetpointState
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Applied, Setpoint, SetpointOutcome, Unreachable
from marketplace_core.dispatch.stop import StopMeaning
from marketplace_core.errors import DeviceError
from marketplace_core.units import Kw
from tests.harness.clocks import WallClock

CLOCK = WallClock()


class Devices:
    """An adapter that says yes, unless told otherwise for a device."""

    protocol = "mqtt"

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.unreachable: dict[str, int] = {}
        """Times that a device is not reached before it is."""
        self.broken: set[str] = set()
        self.silent: set[str] = set()

    async def release(self, device_id: str, *, order_id: str, revision: int) -> SetpointOutcome:
        return await self._answer("", device_id, f"release {order_id} {revision}")

    async def issue(self, setpoints: Sequence[Setpoint]) -> AsyncIterator[list[SetpointOutcome]]:
        for each in setpoints:
            yield [await self._answer(each.id, each.device_id, f"hold {each.power_kw:g}")]

    async def _answer(self, setpoint_id: str, device: str, what: str) -> SetpointOutcome:
        self.told.append((device, what))
        if device in self.silent:
            await asyncio.sleep(3600)
        if device in self.broken:
            raise DeviceError("no answer", device_id=device, retryable=True)
        if self.unreachable.get(device, 0) > 0:
            self.unreachable[device] -= 1
            return Unreachable(
                setpoint_id=setpoint_id, device_id=device, at=CLOCK.now(), reason="offline"
            )
        return Applied(setpoint_id=setpoint_id, device_id=device, at=CLOCK.now())


def profile(name: str, lease: LeaseKind) -> DeviceProfile:
    return DeviceProfile(
        device_id=name, protocol="mqtt", min_kw=Kw(-5.0), max_kw=Kw(5.0), lease=lease,
        lease_s=60.0, fallback_kw=Kw(-1.0),
    )  # fmt: skip


class World:
    def __init__(self, *names: str, lease: LeaseKind = LeaseKind.TIME_TO_LIVE) -> None:
        self.devices = Devices()
        profiles = {name: profile(name, lease) for name in names}
        self.conductor = Conductor(None, profiles, CLOCK)  # type: ignore[arg-type]
        self.metrics = Metrics()
        self.conductor.restore(self.row(name) for name in names)
        self.lane = EmergencyLane(
            {"mqtt": self.devices},  # type: ignore[dict-item]
            conductor=self.conductor, clock=CLOCK, metrics=self.metrics, give_up_s=0.6,
        )  # fmt: skip

    @staticmethod
    def row(name: str) -> SetpointRow:
        setpoint = Setpoint(
            id=f"spt_{name}", order_id="ord_1", revision=2, device_id=name, power_kw=Kw(2.0),
            valid_from=CLOCK.now(), valid_until=CLOCK.now() + timedelta(hours=1), lease_s=60.0,
        )  # fmt: skip
        return SetpointRow(setpoint=setpoint, state=SetpointState.APPLIED, outcome=None)

    async def stop(self, meaning: StopMeaning = StopMeaning.RELEASE) -> dict[str, str]:
        standing = self.lane.open_setpoints()
        meanings = dict.fromkeys((each.device_id for each in standing), meaning)
        ids = [each.id for each in standing]
        outcomes = await self.lane.stop("emg_1", ids, meanings, since=CLOCK.monotonic())
        assert all(each.latency_s >= 0 for each in outcomes)
        return {each.device_id: each.outcome for each in outcomes}


async def test_devices_are_released_side_by_side_and_nothing_is_held_any_more() -> None:
    world = World("a", "b")
    assert await world.stop() == {"a": "applied", "b": "applied"}
    assert sorted(world.devices.told) == [("a", "release ord_1 2"), ("b", "release ord_1 2")]
    assert world.lane.open_setpoints() == []
    assert b"flexway_emergency_stop_seconds_count 2.0" in world.metrics.exposition()


async def test_a_silent_device_holds_nobody_up_and_goes_back_to_be_tried_on() -> None:
    world = World("a", "b", "c")
    world.devices.silent = {"b"}
    world.devices.broken = {"c"}
    began = CLOCK.monotonic()
    assert await world.stop() == {"a": "applied", "b": "unconfirmed", "c": "unconfirmed"}
    assert CLOCK.monotonic() - began < 30
    left = world.lane.open_setpoints()
    assert [each.device_id for each in left] == ["b", "c"]
    assert all(each.valid_until <= CLOCK.now() for each in left), "its time must be over"


async def test_a_device_that_comes_back_in_time_is_stopped() -> None:
    world = World("a")
    world.devices.unreachable = {"a": 1}
    assert await world.stop() == {"a": "applied"}
    assert len(world.devices.told) == 2


async def test_what_was_on_its_way_is_followed_by_another_stop() -> None:
    world = World("a")
    [held] = world.conductor._agenda.every()
    held.work = object()
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(world.stop())
        await asyncio.sleep(0.1)
        assert not stopping.done()
        world.devices.told.append(("a", "the setpoint that was on its way"))
        held.work = None
    assert stopping.result() == {"a": "applied"}
    assert world.devices.told[-1] == ("a", "release ord_1 2")


@pytest.mark.parametrize(
    ("meaning", "lease", "told"),
    [
        (StopMeaning.ZERO, LeaseKind.TIME_TO_LIVE, "hold 0"),
        (StopMeaning.FALLBACK, LeaseKind.REVERT_TIMER, "hold -1"),
        # Nobody would end a value at these: they are released.
        (StopMeaning.ZERO, LeaseKind.WATCHDOG, "release ord_1 2"),
        (StopMeaning.ZERO, LeaseKind.HEARTBEAT, "release ord_1 2"),
        (StopMeaning.FALLBACK, LeaseKind.EVENT_END, "release ord_1 2"),
    ],
)
async def test_a_value_is_held_only_where_it_ends_by_itself(
    meaning: StopMeaning, lease: LeaseKind, told: str
) -> None:
    world = World("a", lease=lease)
    assert await world.stop(meaning) == {"a": "applied"}
    assert world.devices.told == [("a", told)]


async def test_a_setpoint_that_was_never_sent_is_withdrawn_without_a_word_to_its_device() -> None:
    world = World("a")
    [running] = world.lane.open_setpoints()
    later = msgspec.structs.replace(running, id="spt_later", order_id="ord_2")
    world.conductor.planned([later])
    meanings = {"a": StopMeaning.RELEASE}
    [outcome] = await world.lane.stop("emg_1", ["spt_later"], meanings, since=CLOCK.monotonic())
    assert (outcome.device_id, outcome.outcome) == ("a", "applied")
    assert world.devices.told == []
    assert [each.id for each in world.lane.open_setpoints()] == [running.id]
