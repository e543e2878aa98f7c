"""Each SunSpec control end to end over a real socket: adapter, client, simulated unit.

Each is driven, read back, left alone until it reverts, and released.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.modbus.adapter import ModbusAdapter, ModbusEndpoint
from firmware_sim.servers.modbus import BatteryUnit, InverterUnit, ModbusServer, Unit
from firmware_sim.servers.modbus_controls import HeartbeatUnit, LimitUnit, StorageUnit
from marketplace_core.dispatch.profile import ControlKind, DeviceProfile, LeaseKind
from marketplace_core.dispatch.setpoint import Applied, Refused, Setpoint, SetpointOutcome
from marketplace_core.units import Kw, Kwh
from tests.harness.clocks import IdentityTime, WallClock, eventually
from tests.harness.sinks import ListSink

pytestmark = pytest.mark.process
LEASE_S = 60.0


class Driven:
    """One unit behind an adapter of its own."""

    def __init__(self, adapter: ModbusAdapter, now: list[float]) -> None:
        self.adapter = adapter
        self.sink = ListSink()
        self.now = now
        """What the unit takes for the time; its timers run on it."""

    async def set(self, power_kw: float, *, name: str = "spt_1", lease_s: float = LEASE_S
                  ) -> SetpointOutcome:  # fmt: skip
        at = datetime.now(UTC)
        setpoint = Setpoint(
            id=name, order_id="ord_1", revision=0, device_id="dev-1", power_kw=Kw(power_kw),
            valid_from=at, valid_until=at + timedelta(minutes=10), lease_s=lease_s,
        )  # fmt: skip
        outcomes = [one async for batch in self.adapter.issue([setpoint]) for one in batch]
        return outcomes[0]

    async def release(self) -> SetpointOutcome:
        return await self.adapter.release("dev-1", order_id="ord_1", revision=0)


@asynccontextmanager
async def driven(
    unit: Unit, now: list[float], *, kind: ControlKind = ControlKind.SETPOINT,
    lease: LeaseKind = LeaseKind.REVERT_TIMER, fallback_kw: float | None = None, **keys: Any,
) -> AsyncIterator[Driven]:  # fmt: skip
    profile = DeviceProfile(
        device_id="dev-1", protocol="modbus", min_kw=Kw(-8.0), max_kw=Kw(8.0), control=kind,
        lease=lease, lease_s=LEASE_S, capacity_kwh=Kwh(10.0),
        fallback_kw=None if fallback_kw is None else Kw(fallback_kw),
    )  # fmt: skip
    async with ModbusServer({1: unit}) as server:
        endpoint = ModbusEndpoint(
            device_id="dev-1", host="127.0.0.1", port=server.port, unit=1, profile=profile,
            **{"role": "battery", **keys},
        )  # fmt: skip
        adapter = ModbusAdapter(
            [endpoint], clock=WallClock(), time_map=IdentityTime(), timeout_s=2.0
        )
        async with asyncio.TaskGroup() as tasks:
            lab = Driven(adapter, now)
            running = tasks.create_task(adapter.run(lab.sink, ready=lambda: None))
            yield lab
            running.cancel()


async def test_a_ceiling_of_model_704_reverts_after_silence_and_is_released() -> None:
    now = [100.0]
    unit = LimitUnit("pv-1", serial="S", rated_kw=5.0, monotonic=lambda: now[0])
    async with driven(unit, now, kind=ControlKind.LIMIT, control="wmaxlim_704") as lab:
        outcome = await lab.set(2.0)
        assert isinstance(outcome, Applied), outcome
        assert (outcome.read_back_kw, outcome.lease_remaining_s) == (2.0, LEASE_S)
        assert unit.commanded_kw() == 2.0
        now[0] += 40
        refreshed = await lab.set(2.0)
        assert isinstance(refreshed, Applied)
        assert refreshed.lease_remaining_s == LEASE_S
        now[0] += LEASE_S - 1
        assert unit.commanded_kw() == 2.0
        now[0] += 1
        assert unit.commanded_kw() is None
        assert isinstance(await lab.set(1.0, name="spt_2"), Applied)
        assert isinstance(await lab.release(), Applied)
        assert unit.commanded_kw() is None


async def test_a_ceiling_of_model_704_holds_the_fallback_after_silence() -> None:
    now = [100.0]
    unit = LimitUnit("pv-1", serial="S", rated_kw=8.0, monotonic=lambda: now[0])
    keys = {"control": "wmaxlim_704", "fallback_kw": 4.0}
    async with driven(unit, now, kind=ControlKind.LIMIT, **keys) as lab:
        assert isinstance(await lab.set(2.0), Applied)
        now[0] += LEASE_S
        assert unit.commanded_kw() == 4.0


async def test_a_limit_in_coarse_steps_reads_back_as_the_step_it_is() -> None:
    """Whole per cent of 8 kW are steps of 80 W: 1.234 kW is held as 1.2."""
    now = [100.0]
    unit = InverterUnit("pv-1", serial="S", rated_kw=8.0, monotonic=lambda: now[0])
    async with driven(unit, now, kind=ControlKind.LIMIT, role="inverter") as lab:
        outcome = await lab.set(1.234)
        assert isinstance(outcome, Applied), outcome
        assert outcome.read_back_kw == pytest.approx(1.2)


async def test_a_ceiling_of_model_123_reverts_after_silence() -> None:
    now = [100.0]
    unit = InverterUnit("pv-1", serial="S", rated_kw=8.0, monotonic=lambda: now[0])
    async with driven(unit, now, kind=ControlKind.LIMIT, role="inverter") as lab:
        assert isinstance(await lab.set(2.0), Applied)
        now[0] += LEASE_S - 0.1
        assert unit.commanded_kw() == 2.0
        now[0] += 0.2
        assert unit.commanded_kw() is None


async def test_limits_of_model_124_bound_one_side_and_revert_after_silence() -> None:
    now = [100.0]
    unit = StorageUnit("bat-1", serial="S", most_kw=8.0, monotonic=lambda: now[0])
    async with driven(unit, now, kind=ControlKind.LIMIT, control="storage_124") as lab:
        assert isinstance(await lab.set(2.0), Applied)
        assert unit.window_kw() == (-8.0, 2.0)
        assert isinstance(await lab.set(-3.0, name="spt_2"), Applied)
        assert unit.window_kw() == (-3.0, 8.0)
        assert isinstance(await lab.set(0.0, name="spt_3"), Applied)
        assert unit.window_kw() == (0.0, 0.0)
        now[0] += LEASE_S
        assert unit.window_kw() == (-8.0, 8.0)
        assert not (await lab.adapter.read_back("dev-1")).active


async def test_model_124_forces_where_the_maker_allows_it_and_is_released() -> None:
    now = [100.0]
    unit = StorageUnit(
        "bat-1", serial="S", most_kw=8.0, negative_rates=True, monotonic=lambda: now[0]
    )
    async with driven(unit, now, control="storage_124", negative_rates=True) as lab:
        for number, power in enumerate((3.0, -5.0, 8.0, 0.0)):
            outcome = await lab.set(power, name=f"spt_{number}")
            assert isinstance(outcome, Applied), outcome
            assert outcome.read_back_kw == pytest.approx(power)
            assert unit.window_kw() == pytest.approx((power, power))
        assert isinstance(await lab.release(), Applied)
        assert unit.window_kw() == (-8.0, 8.0)


async def test_model_124_is_never_forced_where_the_profile_does_not_say_so() -> None:
    now, log = [100.0], list[Any]()
    unit = StorageUnit("bat-1", serial="S", most_kw=8.0, monotonic=lambda: now[0], log=log.append)
    async with driven(unit, now, control="storage_124") as lab:
        outcome = await lab.set(3.0)
        assert isinstance(outcome, Refused)
        assert "negative_rates = true" in outcome.reason
        assert [entry for entry in log if entry.get("received") == "write"] == []


@pytest.mark.parametrize(("control", "model"), [("storage_124", 124), ("wmaxlim_123", 123)])
async def test_a_control_that_the_unit_does_not_have_is_refused_with_those_it_has(
    control: str, model: int
) -> None:
    unit = BatteryUnit("bat-1", serial="S", capacity_kwh=6.4)
    async with driven(unit, [0.0], kind=ControlKind.LIMIT, control=control) as lab:
        outcome = await lab.set(3.0)
        assert isinstance(outcome, Refused)
        assert f"no model {model}; it has 1, 701, 704, 713" in outcome.reason


def heartbeat(now: list[float], *, patience_s: float = 30.0) -> HeartbeatUnit:
    return HeartbeatUnit(
        "bat-1", serial="S", fallback_kw=-1.0, patience_s=patience_s, monotonic=lambda: now[0]
    )


async def test_a_heartbeat_goes_on_while_the_lease_holds() -> None:
    now = [100.0]
    unit = heartbeat(now)
    keys = {"lease": LeaseKind.HEARTBEAT, "fallback_kw": -1.0}
    async with driven(unit, now, **keys) as lab:
        outcome = await lab.set(3.0)
        assert isinstance(outcome, Applied), outcome
        assert outcome.lease_remaining_s is None  # it does not tell
        assert unit.commanded_kw() == 3.0
        first = unit._get(715, "ControllerHb")
        await eventually(
            lambda: unit._get(715, "ControllerHb") >= first + 2, seconds=10, what="two more beats"
        )
        now[0] += 29
        assert unit.commanded_kw() == 3.0


async def test_a_unit_falls_back_when_the_heart_stands_still_and_is_driven_again() -> None:
    now = [100.0]
    unit = heartbeat(now)
    keys = {"lease": LeaseKind.HEARTBEAT, "fallback_kw": -1.0}
    async with driven(unit, now, **keys) as lab:
        assert isinstance(await lab.set(3.0, lease_s=0.5), Applied)  # ends before the next beat
        now[0] += 31
        assert unit.commanded_kw() == -1.0
        assert not (await lab.adapter.read_back("dev-1")).active
        assert isinstance(await lab.set(2.0, name="spt_2"), Applied)
        assert unit.commanded_kw() == 2.0


async def test_a_release_ends_the_heartbeat() -> None:
    now = [100.0]
    unit = heartbeat(now)
    keys = {"lease": LeaseKind.HEARTBEAT, "fallback_kw": -1.0}
    async with driven(unit, now, **keys) as lab:
        assert isinstance(await lab.set(3.0), Applied)
        assert isinstance(await lab.release(), Applied)
        assert unit.commanded_kw() is None
        beats = unit._get(715, "ControllerHb")
        await asyncio.sleep(1.5)  # more than one beat
        assert unit._get(715, "ControllerHb") == beats


async def test_a_unit_in_local_control_is_refused() -> None:
    now = [100.0]
    unit = heartbeat(now)
    unit.local = True
    keys = {"lease": LeaseKind.HEARTBEAT, "fallback_kw": -1.0}
    async with driven(unit, now, **keys) as lab:
        outcome = await lab.set(3.0)
        assert isinstance(outcome, Refused)
        assert "local control" in outcome.reason
        assert unit.commanded_kw() is None
        unit.local = False
        assert isinstance(await lab.set(3.0), Applied)


async def test_a_unit_without_a_heartbeat_is_refused_before_any_setpoint() -> None:
    unit = BatteryUnit("bat-1", serial="S", capacity_kwh=6.4)
    keys = {"lease": LeaseKind.HEARTBEAT, "fallback_kw": -1.0}
    async with driven(unit, [0.0], **keys) as lab:
        outcome = await lab.set(3.0)
        assert isinstance(outcome, Refused)
        assert "no model 715" in outcome.reason
        assert unit.commanded_kw() is None


async def test_after_a_restart_a_limit_reads_back_in_the_unit_s_own_kilowatts() -> None:
    """The profile says 8 kW and the unit 5: a new adapter knows before it has written anything."""
    now = [100.0]
    unit = LimitUnit("pv-1", serial="S", rated_kw=5.0, monotonic=lambda: now[0])
    keys = {"kind": ControlKind.LIMIT, "control": "wmaxlim_704"}
    async with driven(unit, now, **keys) as lab:
        assert isinstance(await lab.set(2.0), Applied)
    async with driven(unit, now, **keys) as lab:
        answer = await lab.adapter.read_back("dev-1")
        assert (answer.active, answer.setpoint_kw) == (True, 2.0)


async def test_stored_energy_comes_from_what_the_unit_has() -> None:
    now = [100.0]
    unit = StorageUnit("bat-1", serial="S", most_kw=8.0, monotonic=lambda: now[0])
    unit.publish(power_kw=-2.0, soc_percent=40.0)
    async with driven(unit, now, kind=ControlKind.LIMIT, control="storage_124") as lab:
        await eventually(lambda: bool(lab.sink.readings), what="a reading")
        assert lab.sink.readings[0].power_kw == -2.0
        assert lab.sink.readings[0].soc_kwh == pytest.approx(4.0)
