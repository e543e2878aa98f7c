"""A unit whose timer does not work: the gateway brings it back, and does not ask the timer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from adapters.modbus.adapter import ModbusAdapter, ModbusEndpoint
from firmware_sim.servers.modbus import BatteryUnit, ModbusServer
from marketplace_core.dispatch.profile import DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Applied, Refused, SetpointOutcome
from marketplace_core.units import Kw
from tests.harness.clocks import IdentityTime, WallClock
from tests.harness.modbus import setpoint

pytestmark = pytest.mark.process


class Driven:
    def __init__(self, unit: BatteryUnit, adapter: ModbusAdapter) -> None:
        self.unit, self.adapter = unit, adapter

    async def set(self, power_kw: float, **changes: object) -> SetpointOutcome:
        (outcome,) = [
            one async for batch in self.adapter.issue([setpoint(power_kw, **changes)])
            for one in batch
        ]  # fmt: skip
        return outcome

    async def release(self) -> SetpointOutcome:
        return await self.adapter.release("bat-1", order_id="ord_1", revision=0)


@asynccontextmanager
async def driven(lease: LeaseKind, fallback_kw: float | None = None) -> AsyncIterator[Driven]:
    unit = BatteryUnit("bat-1", serial="SN1", capacity_kwh=6.4)
    unit.faults.no_timer = True
    profile = DeviceProfile(
        device_id="bat-1", protocol="modbus", min_kw=Kw(-5.0), max_kw=Kw(5.0), lease=lease,
        lease_s=60.0, fallback_kw=None if fallback_kw is None else Kw(fallback_kw),
    )  # fmt: skip
    async with ModbusServer({1: unit}) as server:
        endpoint = ModbusEndpoint(
            device_id="bat-1", host="127.0.0.1", port=server.port, unit=1, role="battery",
            profile=profile,
        )  # fmt: skip
        adapter = ModbusAdapter(
            [endpoint], clock=WallClock(), time_map=IdentityTime(), timeout_s=2.0
        )
        try:
            yield Driven(unit, adapter)
        finally:
            adapter.close()


async def test_a_timer_that_stands_still_is_refused_only_where_it_is_relied_upon() -> None:
    async with driven(LeaseKind.REVERT_TIMER) as lab:
        assert isinstance(await lab.set(3.0), Refused)
        assert lab.unit.commanded_kw() is None  # taken back: nothing else would end it
    async with driven(LeaseKind.WATCHDOG) as lab:
        assert isinstance(await lab.set(3.0), Applied)
        assert lab.unit.commanded_kw() == 3.0


async def test_the_seconds_of_a_timer_that_does_not_work_are_not_told() -> None:
    async with driven(LeaseKind.WATCHDOG) as lab:
        outcome = await lab.set(3.0)
        assert isinstance(outcome, Applied)
        assert outcome.lease_remaining_s is None
        assert (await lab.adapter.read_back("bat-1")).lease_remaining_s is None
        renewed = await lab.set(3.0)
        assert isinstance(renewed, Applied)


@pytest.mark.parametrize("lease", [LeaseKind.WATCHDOG, LeaseKind.NONE])
async def test_a_release_puts_it_to_its_fallback_for_good(lease: LeaseKind) -> None:
    async with driven(lease, fallback_kw=-1.0) as lab:
        assert isinstance(await lab.set(3.0), Applied)
        outcome = await lab.release()
        assert isinstance(outcome, Applied)
        assert outcome.read_back_kw == -1.0
        assert lab.unit.commanded_kw() == -1.0
        assert lab.unit._get(704, "WSetRvrtTms") == 0  # no timer, were it to work one day
        assert isinstance(await lab.release(), Applied)
        assert isinstance(await lab.set(2.0, id="spt_2"), Applied)


async def test_a_release_without_a_fallback_disables() -> None:
    async with driven(LeaseKind.WATCHDOG) as lab:
        assert isinstance(await lab.set(3.0), Applied)
        assert isinstance(await lab.release(), Applied)
        assert lab.unit.commanded_kw() is None


async def test_without_a_lease_and_a_fallback_nothing_is_written() -> None:
    async with driven(LeaseKind.NONE) as lab:
        outcome = await lab.set(3.0)
        assert isinstance(outcome, Refused)
        assert "neither a lease nor a fallback" in outcome.reason
        assert lab.unit.commanded_kw() is None
