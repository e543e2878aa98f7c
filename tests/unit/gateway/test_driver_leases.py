"""What the driver does about leases: a device that speaks of its own, a journal that listens."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
import pytest

from gateway.observability.metrics import Metrics
from gateway.stages.dispatch.driver import Driver
from gateway.stages.dispatch.held import Held
from gateway.stages.dispatch.outcomes import OutcomeJournal
from gateway.store.setpoints import SetpointState
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import (
    Applied,
    ReadBack,
    Setpoint,
    SetpointOutcome,
    Unreachable,
)
from marketplace_core.errors import DeviceError
from marketplace_core.ports import DeviceAdapter
from marketplace_core.units import Kw

START = datetime(2026, 7, 20, 22, 0, tzinfo=UTC)
LEASE_S = 600.0


class Clock:
    """Market time is wall time, moved by the test."""

    def __init__(self) -> None:
        self.wall = 1000.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.wall - 1000.0)

    def monotonic(self) -> float:
        return self.wall

    def wall_seconds(self, market_seconds: float) -> float:
        return market_seconds

    async def sleep_until(self, at: datetime) -> None:
        raise AssertionError(at)


class Device:
    """One device behind an adapter: what it answers is for the test to say."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.reachable = True
        self.active = True
        self.holds: str | None = "spt_1"
        self.lease_s: float | None = None
        """What it tells of its own timer."""
        self.issued: list[str] = []

    async def issue(self, setpoints: Sequence[Setpoint]) -> AsyncIterator[list[SetpointOutcome]]:
        for each in setpoints:
            self.issued.append(each.id)
            said = {"setpoint_id": each.id, "device_id": each.device_id, "at": self._clock.now()}
            if self.reachable:
                yield [Applied(**said, lease_remaining_s=self.lease_s)]
            else:
                yield [Unreachable(**said, reason="silent")]

    async def read_back(self, device_id: str) -> ReadBack:
        if not self.reachable:
            raise DeviceError("silent", device_id=device_id, retryable=True)
        return ReadBack(
            device_id=device_id, at=self._clock.now(), active=self.active,
            setpoint_id=self.holds, setpoint_kw=Kw(-2.0), lease_remaining_s=self.lease_s,
        )  # fmt: skip


class Journal:
    """Notes outcomes."""

    def __init__(self) -> None:
        self.entries: list[SetpointOutcome] = []

    async def outcomes(
        self, setpoints: Sequence[Setpoint], outcomes: Sequence[SetpointOutcome]
    ) -> None:
        assert [s.id for s in setpoints] == [o.setpoint_id for o in outcomes]
        self.entries.extend(outcomes)

    async def issued(self, setpoints: Sequence[Setpoint], superseded: Sequence[str] = ()) -> None:
        assert setpoints
        assert not superseded

    def kinds(self) -> list[type[Any]]:
        return [type(entry) for entry in self.entries]


class Bench:
    """A driver over one device, and one setpoint of an hour."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.device = Device(self.clock)
        self.journal = Journal()
        adapters = {"mqtt": cast("DeviceAdapter", self.device)}
        journal = cast("OutcomeJournal", self.journal)
        self.driver = Driver(adapters, journal=journal, clock=self.clock, metrics=Metrics())

    def held(self, state: SetpointState, valid_s: float = 3600.0, name: str = "spt_1") -> Held:
        profile = DeviceProfile(
            device_id="ev-1", protocol="mqtt", min_kw=Kw(-7.0), max_kw=Kw(0.0),
            lease=LeaseKind.TIME_TO_LIVE, lease_s=LEASE_S,
        )  # fmt: skip
        setpoint = Setpoint(
            id=name, order_id="ord_1", revision=0, device_id="ev-1", power_kw=Kw(-2.0),
            valid_from=START, valid_until=START + timedelta(seconds=valid_s), lease_s=LEASE_S,
        )  # fmt: skip
        return Held(setpoint, profile, state, self.clock.now())

    async def in_force(self) -> Held:
        """A setpoint whose lease was renewed just now."""
        one = self.held(SetpointState.APPLIED)
        await self.driver.refresh([one])
        self.journal.entries.clear()
        return one


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("lease_s", [None, 450.0])
async def test_a_setpoint_found_in_force_is_adopted_and_due_for_refresh_at_once(
    bench: Bench, lease_s: float | None
) -> None:
    """Nobody renewed its lease while the gateway was away, whatever the device tells of it."""
    bench.device.lease_s = lease_s
    held = bench.held(SetpointState.ISSUED)
    await bench.driver.resolve([held])
    assert held.state is SetpointState.APPLIED
    assert held.retry_at == bench.clock.monotonic()
    assert bench.device.issued == []
    (entry,) = bench.journal.entries
    assert entry == Applied(
        setpoint_id="spt_1", device_id="ev-1", at=START, read_back_kw=Kw(-2.0),
        lease_remaining_s=lease_s,
    )  # fmt: skip


@pytest.mark.parametrize(("asked_kw", "again"), [(-2.49, []), (-2.6, ["spt_1"]), (-1.4, ["spt_1"])])
async def test_a_device_with_steps_that_holds_the_step_beside_is_found_in_force(
    bench: Bench, asked_kw: float, again: list[str]
) -> None:
    """It tells no setpoint's id and holds -2 kW in steps of 0.5 kW."""
    bench.device.holds = None
    held = bench.held(SetpointState.ISSUED)
    held.setpoint = msgspec.structs.replace(held.setpoint, power_kw=Kw(asked_kw))
    held.profile = msgspec.structs.replace(held.profile, step_kw=0.5)
    await bench.driver.resolve([held])
    assert bench.device.issued == again


async def test_an_adopted_setpoint_whose_lease_lasts_to_its_end_needs_no_refresh(
    bench: Bench,
) -> None:
    held = bench.held(SetpointState.ISSUED, valid_s=200.0)
    bench.device.lease_s = 200.0
    await bench.driver.resolve([held])
    assert held.state is SetpointState.APPLIED
    assert held.retry_at == math.inf


async def test_a_setpoint_that_was_known_to_be_applied_is_not_journalled_again_when_found(
    bench: Bench,
) -> None:
    held = bench.held(SetpointState.APPLIED)
    await bench.driver.resolve([held])
    assert bench.journal.entries == []
    assert held.retry_at == bench.clock.monotonic()


@pytest.mark.parametrize(("active", "holds"), [(False, "spt_1"), (True, "spt_0")])
async def test_a_setpoint_that_is_not_in_force_is_issued_again(
    bench: Bench, *, active: bool, holds: str
) -> None:
    bench.device.active, bench.device.holds = active, holds
    held = bench.held(SetpointState.ISSUED)
    await bench.driver.resolve([held])
    assert bench.device.issued == ["spt_1"]
    assert held.state is SetpointState.APPLIED
    assert held.retry_at == bench.clock.monotonic() + LEASE_S / 2


async def test_what_may_have_been_applied_and_is_not_in_force_is_never_repeated(
    bench: Bench,
) -> None:
    bench.device.active = False
    held = bench.held(SetpointState.UNCONFIRMED)
    await bench.driver.resolve([held])
    assert bench.device.issued == []
    assert bench.journal.entries == []
    assert held.retry_at == bench.clock.monotonic() + LEASE_S / 10


async def test_a_device_that_cannot_be_asked_is_asked_again_soon(bench: Bench) -> None:
    bench.device.reachable = False
    held = bench.held(SetpointState.ISSUED)
    await bench.driver.resolve([held])
    assert (held.state, bench.device.issued) == (SetpointState.ISSUED, [])
    assert held.retry_at == bench.clock.monotonic() + LEASE_S / 10


async def test_a_refresh_before_the_lease_lapsed_is_not_journalled(bench: Bench) -> None:
    held = await bench.in_force()
    bench.clock.wall += LEASE_S - 0.001
    await bench.driver.refresh([held])
    assert bench.device.issued == ["spt_1", "spt_1"]
    assert bench.journal.entries == []
    assert held.lease_ends == bench.clock.monotonic() + LEASE_S


async def test_a_refresh_after_the_lease_had_lapsed_journals_that_it_applies_anew(
    bench: Bench,
) -> None:
    """The device fell back meanwhile: it is judged from here on."""
    held = await bench.in_force()
    bench.clock.wall += LEASE_S
    await bench.driver.refresh([held])
    assert bench.journal.kinds() == [Applied]
    assert bench.journal.entries[0].at == bench.clock.now()
    assert held.state is SetpointState.APPLIED
    assert held.lease_ends == bench.clock.monotonic() + LEASE_S


async def test_a_refresh_that_fails_within_the_lease_is_tried_again_in_silence(
    bench: Bench,
) -> None:
    held = await bench.in_force()
    bench.device.reachable = False
    bench.clock.wall += LEASE_S / 2
    await bench.driver.refresh([held])
    assert bench.journal.entries == []
    assert held.state is SetpointState.APPLIED
    assert held.retry_at == bench.clock.monotonic() + LEASE_S / 10


async def test_a_refresh_that_fails_after_the_lease_is_journalled_once(bench: Bench) -> None:
    held = await bench.in_force()
    bench.device.reachable = False
    bench.clock.wall += LEASE_S
    await bench.driver.refresh([held])
    assert bench.journal.kinds() == [Unreachable]
    assert held.state is SetpointState.UNREACHABLE
    await bench.driver.resolve([held])
    assert bench.journal.kinds() == [Unreachable]
    bench.device.reachable = True
    await bench.driver.resolve([held])
    assert bench.journal.kinds() == [Unreachable, Applied]


async def test_each_answer_frees_its_setpoint_once_it_is_journalled(bench: Bench) -> None:
    group = [bench.held(SetpointState.PLANNED, name=f"spt_{number}") for number in range(3)]
    freed: list[tuple[list[str], int]] = []
    await bench.driver.send(
        group, lambda some: freed.append(
            ([each.setpoint.id for each in some], len(bench.journal.entries))
        ),
    )  # fmt: skip
    assert freed == [(["spt_0"], 1), (["spt_1"], 2), (["spt_2"], 3)]
